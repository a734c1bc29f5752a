package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
	"go.yaml.in/yaml/v3"
)

// tests is what of promtool's format our tests use.
type tests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []test         `yaml:"tests"`
}

type test struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTest []struct {
		EvalTime  model.Duration `yaml:"eval_time"`
		AlertName string         `yaml:"alertname"`
		ExpAlerts []alert        `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

// alert is one that fires.
type alert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// rules runs the tests of alert rules; each rule must have one in which it fires and one in which it is asked and doesn't.
func rules(path string, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var all tests
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	byName := map[string]rulefmt.Rule{}
	for _, file := range all.RuleFiles {
		file = filepath.Join(filepath.Dir(path), file)
		groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, language, promslog.NewNopLogger())
		if len(errs) > 0 {
			return fmt.Errorf("%s: %v", file, errs)
		}
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				byName[rule.Alert] = rule
			}
		}
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	var wrong []string
	for _, test := range all.Tests {
		m, err := test.memory()
		if err != nil {
			return fmt.Errorf("%s: %w", test.Name, err)
		}
		for _, expected := range test.AlertRuleTest {
			rule, known := byName[expected.AlertName]
			if !known {
				return fmt.Errorf("%s: there is no alert %s", test.Name, expected.AlertName)
			}
			got, err := firing(m, rule, time.Duration(all.EvaluationInterval), time.Duration(expected.EvalTime))
			if err != nil {
				return fmt.Errorf("%s: %w", rule.Alert, err)
			}
			for _, one := range expected.ExpAlerts {
				one.Labels["alertname"] = rule.Alert
			}
			if len(got)+len(expected.ExpAlerts) > 0 && !reflect.DeepEqual(got, expected.ExpAlerts) {
				wrong = append(wrong, fmt.Sprintf("%s: %s at %s: expected %v, got %v", test.Name, rule.Alert, time.Duration(expected.EvalTime), expected.ExpAlerts, got))
			}
			fires[rule.Alert] = fires[rule.Alert] || len(got) > 0
			silent[rule.Alert] = silent[rule.Alert] || len(got) == 0
		}
	}
	for name := range byName {
		if !fires[name] || !silent[name] {
			wrong = append(wrong, fmt.Sprintf("%s lacks a test in which it fires, or one in which it doesn't", name))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	_, err = fmt.Fprintf(out, "%d alerts fire and are silent as they should\n", len(byName))
	return err
}

func (t test) memory() (*memory, error) {
	m := newMemory()
	for _, series := range t.InputSeries {
		of, values, err := language.ParseSeriesDesc(series.Series + " " + series.Values)
		if err != nil {
			return nil, err
		}
		for n, value := range values {
			if !value.Omitted {
				m.add(of, time.Unix(0, 0).Add(time.Duration(n)*time.Duration(t.Interval)), value.Value)
			}
		}
	}
	return m, nil
}

// firing evaluates a rule again and again until a time, and gives the alerts that have been active for long enough then.
func firing(m *memory, rule rulefmt.Rule, every, until time.Duration) ([]alert, error) {
	since := map[uint64]time.Duration{}
	var alerts []alert
	for at := time.Duration(0); at <= until; at += every {
		vector, err := evaluate(m, rule.Expr, time.Unix(0, 0).Add(at))
		if err != nil {
			return nil, err
		}
		alerts = nil
		active := map[uint64]time.Duration{}
		for _, each := range vector {
			key := each.Metric.Hash()
			began, was := since[key]
			if !was {
				began = at
			}
			active[key] = began
			if at-began < time.Duration(rule.For) {
				continue
			}
			one, err := expanded(rule, each, at)
			if err != nil {
				return nil, err
			}
			alerts = append(alerts, one)
		}
		since = active
	}
	slices.SortFunc(alerts, func(a, b alert) int { return strings.Compare(fmt.Sprint(a.Labels), fmt.Sprint(b.Labels)) })
	return alerts, nil
}

// expanded is the alert as it is sent: without the metric's name, with the rule's labels and annotations.
func expanded(rule rulefmt.Rule, found promql.Sample, at time.Duration) (alert, error) {
	of := found.Metric.Map()
	data := template.AlertTemplateData(maps.Clone(of), nil, "", found)
	expand := func(texts map[string]string) (map[string]string, error) {
		done := map[string]string{}
		for name, text := range texts {
			text = "{{$labels := .Labels}}{{$value := .Value}}" + text
			expander := template.NewTemplateExpander(context.Background(), text, rule.Alert, data, model.Time(at.Milliseconds()), nil, &url.URL{}, nil)
			said, err := expander.Expand()
			if err != nil {
				return nil, err
			}
			done[name] = said
		}
		return done, nil
	}
	added, err := expand(rule.Labels)
	if err != nil {
		return alert{}, err
	}
	annotations, err := expand(rule.Annotations)
	if err != nil {
		return alert{}, err
	}
	delete(of, model.MetricNameLabel)
	maps.Copy(of, added)
	of["alertname"] = rule.Alert
	return alert{of, annotations}, nil
}
