package main

import (
	"math"
	"slices"
)

// A summary is the median and the range of the values of several rounds.
type summary struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// summarise sums up values. Of no values all fields are zero.
func summarise(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return summary{N: n, Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// mean returns the mean of values, of which there must be some.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// percentile returns the smallest value such that at least that share of the values is not greater (nearest rank).
func percentile(values []float64, share float64) float64 {
	v := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(share * float64(len(v))))
	return v[min(max(rank, 1), len(v))-1]
}
