//go:build race

package deflate

// raceDetector says that everything takes many times as long, and that there is
// little to be found: all of this package runs on its caller's goroutine. The
// longest tests try less then.
const raceDetector = true
