package main

import (
	"context"
	"math"
	"sort"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// sample is one value of a series.
type sample struct {
	milliseconds int64
	value        float64
}

func (s sample) T() int64                      { return s.milliseconds }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// memory holds all series: what Prometheus keeps on disk.
type memory struct {
	labels  map[uint64]labels.Labels
	samples map[uint64][]chunks.Sample
}

func newMemory() *memory {
	return &memory{labels: map[uint64]labels.Labels{}, samples: map[uint64][]chunks.Sample{}}
}

// add appends a value to a series; times rise.
func (m *memory) add(of labels.Labels, at time.Time, value float64) {
	key := of.Hash()
	m.labels[key] = of
	m.samples[key] = append(m.samples[key], sample{at.UnixMilli(), value})
}

// Querier implements storage.Queryable.
func (m *memory) Querier(_, _ int64) (storage.Querier, error) { return m, nil }

// Select implements storage.Querier.
func (m *memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &set{next: -1}
	for key, of := range m.labels {
		matches := true
		for _, matcher := range matchers {
			matches = matches && matcher.Matches(of.Get(matcher.Name))
		}
		if matches {
			found.series = append(found.series, storage.NewListSeries(of, m.samples[key]))
		}
	}
	sort.Slice(found.series, func(i, j int) bool {
		return labels.Compare(found.series[i].Labels(), found.series[j].Labels()) < 0
	})
	return found
}

// LabelValues implements storage.Querier; the engine doesn't ask.
func (m *memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier; the engine doesn't ask.
func (m *memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// Close implements storage.Querier.
func (m *memory) Close() error { return nil }

// set is what was selected.
type set struct {
	series []storage.Series
	next   int
}

func (s *set) Next() bool                        { s.next++; return s.next < len(s.series) }
func (s *set) At() storage.Series                { return s.series[s.next] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

// engine evaluates as a Prometheus with default settings does.
var engine = promql.NewEngine(promql.EngineOpts{
	MaxSamples:           math.MaxInt32,
	Timeout:              time.Minute,
	LookbackDelta:        5 * time.Minute,
	EnableAtModifier:     true,
	EnableNegativeOffset: true,
})

var language = parser.NewParser(parser.Options{})

// evaluate gives what an expression finds at a time.
func evaluate(m *memory, expression string, at time.Time) (promql.Vector, error) {
	query, err := engine.NewInstantQuery(context.Background(), m, nil, expression, at)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(context.Background())
	if result.Err != nil {
		return nil, result.Err
	}
	if scalar, ok := result.Value.(promql.Scalar); ok {
		return promql.Vector{promql.Sample{T: scalar.T, F: scalar.V}}, nil
	}
	return result.Vector()
}
