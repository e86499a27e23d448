//go:build race

package throughline_test

const raceDetector = true
