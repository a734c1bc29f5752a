package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// asked is read: metrics as they were scraped, oldest first, and queries that are asked at the time of the last.
type asked struct {
	// Labels that Prometheus adds to each series of a target.
	Target  map[string]string `json:"target"`
	Scrapes []struct {
		Seconds float64 `json:"seconds"`
		Text    string  `json:"text"`
	} `json:"scrapes"`
	Queries []string `json:"queries"`
}

// answer is printed, a line for each query.
type answer struct {
	Query string `json:"query"`
	Error string `json:"error,omitempty"`
	Rows  []row  `json:"rows"`
}

type row struct {
	Labels map[string]string `json:"labels"`
	Value  *float64          `json:"value"`
}

func queries(in io.Reader, out io.Writer) error {
	var ask asked
	if err := json.NewDecoder(in).Decode(&ask); err != nil {
		return err
	}
	m, at := newMemory(), time.Time{}
	for _, scrape := range ask.Scrapes {
		at = time.UnixMilli(int64(scrape.Seconds * 1000))
		if err := m.scrape(scrape.Text, ask.Target, at); err != nil {
			return fmt.Errorf("the metrics: %w", err)
		}
	}
	encoder := json.NewEncoder(out)
	for _, query := range ask.Queries {
		found := answer{Query: query, Rows: []row{}}
		vector, err := evaluate(m, query, at)
		if err != nil {
			found.Error = err.Error()
		}
		for _, each := range vector {
			value := &each.F
			if math.IsNaN(*value) || math.IsInf(*value, 0) {
				value = nil
			}
			found.Rows = append(found.Rows, row{each.Metric.Map(), value})
		}
		if err := encoder.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

// scrape takes in what a target shows, as a scrape does.
func (m *memory) scrape(text string, target map[string]string, at time.Time) error {
	parser, err := textparse.New([]byte(text), "text/plain; version=0.0.4", labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return err
	}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var of labels.Labels
		parser.Labels(&of)
		_, _, value := parser.Series()
		m.add(with(of, target), at, value)
	}
	m.add(with(labels.FromStrings(labels.MetricName, "up"), target), at, 1)
	return nil
}

func with(of labels.Labels, more map[string]string) labels.Labels {
	builder := labels.NewBuilder(of)
	for name, value := range more {
		builder.Set(name, value)
	}
	return builder.Labels()
}
