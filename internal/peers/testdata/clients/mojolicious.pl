# Talks to the echo server with Mojolicious, which offers permessage-deflate
# without parameters, keeps its context whatever the answer says, sends an empty
# message as a compressed frame without payload, and goes behind its own close
# frame, whose code only the server can tell.
# Usage: perl mojolicious.pl URL
use Mojo::Base -strict, -signatures;
use Mojo::IOLoop;
use Mojo::UserAgent;
use Mojo::Util qw(encode);
use utf8;

my $url  = shift;
my $text = "Grüße, 漢字, 😀; " x 100;
my @left = (
  [text => $text], [text => $text], [binary => join('', map { chr($_ % 251) } 1 .. 5000)],
  [text => ''], [binary => ''], [binary => join('', map { chr($_ % 251) } 1 .. 1 << 20)], [text => $text],
);
my $seen  = 0;
my $total = @left;

my $ua = Mojo::UserAgent->new(inactivity_timeout => 30, max_response_size => 0);
my $fail = sub ($why) { print STDERR "$why after $seen messages of $total\n"; exit 1 };

sub next_one ($tx) {
  my $m = $left[0] // return $tx->finish(4321 => 'bye');
  $tx->send({$m->[0] => $m->[0] eq 'text' ? encode('UTF-8', $m->[1]) : $m->[1]});
}

$ua->websocket($url => {'Sec-WebSocket-Extensions' => 'permessage-deflate'} => sub ($ua, $tx) {
  $fail->('no upgrade: ' . $tx->res->code) unless $tx->is_websocket;
  print 'agreed on: ', $tx->res->headers->sec_websocket_extensions // 'nothing', "\n";
  $fail->('no compression') unless $tx->compressed;
  $tx->max_websocket_size(4 << 20);
  for my $kind ('text', 'binary') {
    $tx->on($kind => sub ($tx, $got) {
      my $m    = shift @left;
      my $want = $kind eq 'text' ? encode('UTF-8', $m->[1]) : $m->[1];
      $fail->("another $kind message of " . length $got) if $m->[0] ne $kind || $got ne $want;
      $seen++;
      next_one($tx);
    });
  }
  $tx->on(finish => sub ($tx, $code, $reason) {
    $fail->("closed with $code") if $seen != $total;
    Mojo::IOLoop->timer(0.2 => sub { Mojo::IOLoop->stop });    # the frame has yet to be written
  });
  next_one($tx);
});
Mojo::IOLoop->timer(60 => sub { $fail->('timed out') });
Mojo::IOLoop->start;
print "$seen messages\n";
