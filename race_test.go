//go:build race

package websocket

// raceDetector says that everything takes several times as long: a test that
// does something very often does it less often.
const raceDetector = true
