import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** What the jobs need of an impression; times are milliseconds since the epoch. */
public final class Impression {
    static final long HOUR = 3_600_000;
    static final long MINUTE = 60_000;

    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    public String event;
    public String user;
    public String campaign;
    public long ts;

    static Impression parse(byte[] json) {
        Impression read = new Impression();
        try (JsonParser parser = JSON.createParser(json)) {
            parser.nextToken();
            for (String field; (field = parser.nextFieldName()) != null; ) {
                JsonToken token = parser.nextToken();
                switch (field) {
                    case "event_id" -> read.event = parser.getText();
                    case "user_id" -> read.user = parser.getText();
                    case "campaign_id" -> read.campaign = parser.getText();
                    case "ts" -> read.ts = Math.round(parser.getDoubleValue() * 1000);
                    default -> {
                        if (token.isStructStart()) {
                            parser.skipChildren();
                        }
                    }
                }
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return read;
    }

    String pair() {
        return user + '|' + campaign;
    }

    byte[] json() {
        return bytes("{\"event_id\":\"" + event + "\",\"user_id\":\"" + user + "\",\"campaign_id\":\""
                + campaign + "\",\"ts\":" + seconds(ts) + "}");
    }

    /** Sorted times with one more, without those that left the newest's hour; a known one is no change. */
    static long[] with(long[] times, long ts) {
        int at = times.length;
        while (at > 0 && times[at - 1] > ts) {
            at--;
        }
        if (at > 0 && times[at - 1] == ts) {
            return times;
        }
        long newest = at == times.length ? ts : times[times.length - 1];
        int from = 0;
        while (from < at && times[from] <= newest - HOUR) {
            from++;
        }
        long[] more = new long[times.length - from + 1];
        System.arraycopy(times, from, more, 0, at - from);
        more[at - from] = ts;
        System.arraycopy(times, at, more, at - from + 1, times.length - at);
        return more;
    }

    /** Until when the impression at `ts` throttles, or -1: it is not the third within the hour. */
    static long until(long[] times, long ts) {
        int at = Arrays.binarySearch(times, ts);
        return at < 2 || times[at - 2] <= ts - HOUR ? -1 : times[at - 2] + HOUR;
    }

    static byte[] decision(String user, String event, long until) {
        return bytes("{\"id\":\"" + user + "\",\"event_id\":\"" + event + "\",\"until\":" + seconds(until) + "}");
    }

    static byte[] count(String user, String event, long window, long count) {
        return bytes("{\"id\":\"" + user + "\",\"event_id\":\"" + event + "\",\"window\":" + window / 1000
                + ",\"count\":" + count + "}");
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String seconds(long milliseconds) {
        String fraction = Long.toString(1000 + milliseconds % 1000);
        return milliseconds / 1000 + "." + fraction.substring(1);
    }
}
