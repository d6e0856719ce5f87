package deflate

import "errors"

// ErrTooLong says that a message decompresses to more than its limit. What came
// out up to the limit is returned with it.
var ErrTooLong = errors.New("deflate: message over the limit")

// ErrCut says that a message ends before the empty block that has to end it.
var ErrCut = errors.New("deflate: message cut short")

// A CorruptError says what is wrong with a message.
type CorruptError string

func (e CorruptError) Error() string { return "deflate: " + string(e) }

const (
	errBlockType CorruptError = "block of the reserved type 3"
	errStored    CorruptError = "length of a stored block that isn't confirmed by its complement"
	errTooMany   CorruptError = "dynamic block with more than 286 literal or 30 distance codes"
	errPreCode   CorruptError = "code lengths that aren't a complete code for code lengths"
	errLitCode   CorruptError = "code lengths that aren't a complete literal code"
	errDistCode  CorruptError = "code lengths that aren't a complete distance code"
	errNoRepeat  CorruptError = "repeated code length without one before it"
	errRepeat    CorruptError = "repeated code length beyond the last code"
	errNoCode    CorruptError = "bits that are no code"
	errTooFar    CorruptError = "distance beyond what came before"
)
