package echo

var ours []Server
