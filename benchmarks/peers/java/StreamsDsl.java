import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SlidingWindows;
import org.apache.kafka.streams.kstream.TimeWindowedKStream;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;

/**
 * Kafka Streams, DSL. The first argument says how the rolling job is written: `sliding` windows
 * are exact; `hopping` windows of an hour that begin every five minutes miss what spans more than
 * the oldest of them.
 */
final class StreamsDsl {
    static final Duration HOUR = Duration.ofHours(1);
    static final Duration HOP = Duration.ofMinutes(5);
    // Each task of the second half reads what several of the first wrote, some further than others.
    static final Duration GRACE = Duration.ofHours(1);
    static final Duration MINUTE = Duration.ofMinutes(1);

    /** Sorted times in a window, and the newest impression of them. */
    record Seen(long[] times, String event) {
        static Seen nothing() {
            return new Seen(new long[0], "");
        }

        Seen and(Impression impression) {
            long[] more = Impression.with(times, impression.ts);
            return new Seen(more, more[more.length - 1] == impression.ts ? impression.event : event);
        }

        long newest() {
            return times[times.length - 1];
        }
    }

    static final Serde<Seen> SEEN = Serdes.serdeFrom(
            (topic, seen) -> {
                byte[] event = Impression.bytes(seen.event);
                ByteBuffer out = ByteBuffer.allocate(4 + event.length + 8 * seen.times.length);
                out.putInt(event.length).put(event).asLongBuffer().put(seen.times);
                return out.array();
            },
            (topic, bytes) -> {
                if (bytes == null) {
                    return null;
                }
                ByteBuffer in = ByteBuffer.wrap(bytes);
                byte[] event = new byte[in.getInt()];
                in.get(event);
                long[] times = new long[in.remaining() / 8];
                in.asLongBuffer().get(times);
                return new Seen(times, new String(event, java.nio.charset.StandardCharsets.UTF_8));
            });

    public static void main(String[] arguments) {
        Properties settings = StreamsRun.settings();
        if (StreamsRun.heap()) {
            settings.put(
                    StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG,
                    BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        }
        // A pair seldom comes twice within a commit, and sliding windows search the cache by range.
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0L);
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Impression> impressions = builder.stream(
                System.getenv("PEER_INPUT"),
                Consumed.with(Serdes.String(), StreamsRun.IMPRESSION)
                        .withTimestampExtractor(new StreamsRun.Clock()));
        KStream<String, byte[]> answers =
                StreamsRun.rolling() ? rolling(impressions, arguments[0]) : tumbling(impressions);
        answers.to(System.getenv("PEER_OUTPUT"), Produced.with(Serdes.String(), Serdes.ByteArray()));
        StreamsRun.run(builder.build(settings), settings);
    }

    static KStream<String, byte[]> rolling(KStream<String, Impression> impressions, String windows) {
        KGroupedStream<String, Impression> pairs = impressions.groupBy(
                (user, impression) -> impression.pair(),
                Grouped.with(Serdes.String(), StreamsRun.IMPRESSION));
        boolean sliding = windows.equals("sliding");
        // A sliding window holds both its ends, the job's only the later one.
        TimeWindowedKStream<String, Impression> windowed = sliding
                ? pairs.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(HOUR.minusMillis(1), GRACE))
                : pairs.windowedBy(TimeWindows.ofSizeAndGrace(HOUR, GRACE).advanceBy(HOP));
        return windowed.aggregate(
                        Seen::nothing,
                        (pair, impression, seen) -> seen.and(impression),
                        Materialized.with(Serdes.String(), SEEN))
                .toStream()
                .filter((window, seen) -> seen.times.length >= 3 && decides(window, seen, sliding))
                .map((window, seen) -> {
                    String user = window.key().substring(0, window.key().indexOf('|'));
                    long until = Impression.until(seen.times, seen.newest());
                    return KeyValue.pair(user, Impression.decision(user, seen.event, until));
                });
    }

    /** Of all windows that hold the newest impression, the one that reaches back the furthest. */
    static boolean decides(Windowed<String> window, Seen seen, boolean sliding) {
        long end = window.window().end();
        return sliding ? end == seen.newest() : end - seen.newest() <= HOP.toMillis();
    }

    record Counted(long count, String event) {}

    static final Serde<Counted> COUNTED = Serdes.serdeFrom(
            (topic, counted) -> {
                byte[] event = Impression.bytes(counted.event);
                return ByteBuffer.allocate(8 + event.length).putLong(counted.count).put(event).array();
            },
            (topic, bytes) -> bytes == null
                    ? null
                    : new Counted(
                            ByteBuffer.wrap(bytes).getLong(),
                            new String(bytes, 8, bytes.length - 8, java.nio.charset.StandardCharsets.UTF_8)));

    static KStream<String, byte[]> tumbling(KStream<String, Impression> impressions) {
        return impressions
                .groupByKey(Grouped.with(Serdes.String(), StreamsRun.IMPRESSION))
                .windowedBy(TimeWindows.ofSizeAndGrace(MINUTE, MINUTE))
                .aggregate(
                        () -> new Counted(0, ""),
                        (user, impression, counted) -> new Counted(counted.count + 1, impression.event),
                        Materialized.with(Serdes.String(), COUNTED))
                .toStream()
                .map((window, counted) -> KeyValue.pair(
                        window.key(),
                        Impression.count(
                                window.key(), counted.event, window.window().start(), counted.count)));
    }

    private StreamsDsl() {}
}
