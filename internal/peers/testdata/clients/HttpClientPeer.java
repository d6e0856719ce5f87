import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Talks to the echo server with java.net.http, which knows no compression.
 * Usage: java HttpClientPeer.java URL
 */
public class HttpClientPeer implements WebSocket.Listener {
    record Got(boolean text, byte[] data, int code) {}

    final BlockingQueue<Got> queue = new LinkedBlockingQueue<>();
    final StringBuilder text = new StringBuilder();
    final ByteArrayOutputStream binary = new ByteArrayOutputStream();

    @Override
    public CompletionStage<?> onText(WebSocket ws, CharSequence data, boolean last) {
        text.append(data);
        if (last) {
            queue.add(new Got(true, text.toString().getBytes(StandardCharsets.UTF_8), 0));
            text.setLength(0);
        }
        ws.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onBinary(WebSocket ws, ByteBuffer data, boolean last) {
        byte[] piece = new byte[data.remaining()];
        data.get(piece);
        binary.writeBytes(piece);
        if (last) {
            queue.add(new Got(false, binary.toByteArray(), 0));
            binary.reset();
        }
        ws.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
        queue.add(new Got(false, new byte[0], code));
        return null;
    }

    @Override
    public void onError(WebSocket ws, Throwable error) {
        error.printStackTrace();
        queue.add(new Got(false, new byte[0], -1));
    }

    Got next() throws Exception {
        Got got = queue.poll(30, TimeUnit.SECONDS);
        if (got == null) {
            throw new Exception("nothing came in 30 s");
        }
        return got;
    }

    static byte[] pattern(int n) {
        byte[] p = new byte[n];
        for (int i = 0; i < n; i++) {
            p[i] = (byte) (i % 251);
        }
        return p;
    }

    public static void main(String[] args) throws Exception {
        HttpClientPeer peer = new HttpClientPeer();
        WebSocket ws = HttpClient.newHttpClient().newWebSocketBuilder().buildAsync(URI.create(args[0]), peer).get(30, TimeUnit.SECONDS);
        Object[] messages = {"Grüße, 漢字, 😀; ".repeat(100), pattern(5000), "", new byte[0], pattern(1 << 20), "x".repeat(1 << 20), "end"};
        for (Object m : messages) {
            boolean text = m instanceof String;
            byte[] want = text ? ((String) m).getBytes(StandardCharsets.UTF_8) : (byte[]) m;
            if (text) {
                ws.sendText((String) m, true).get(30, TimeUnit.SECONDS);
            } else {
                ws.sendBinary(ByteBuffer.wrap(want), true).get(30, TimeUnit.SECONDS);
            }
            Got got = peer.next();
            if (got.code != 0 || got.text != text || !Arrays.equals(got.data, want)) {
                throw new Exception("text " + got.text + " of " + got.data.length + ", code " + got.code + " came back; want text " + text + " of " + want.length);
            }
        }
        ws.sendPing(ByteBuffer.wrap(new byte[] {1, 2, 3})).get(30, TimeUnit.SECONDS);
        ws.sendClose(4321, "bye").get(30, TimeUnit.SECONDS);
        Got end = peer.next();
        if (end.code != 4321) {
            throw new Exception("closed with " + end.code);
        }
        System.out.println(messages.length + " messages, closed with " + end.code);
        System.exit(0); // the client's threads would keep it
    }
}
