import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Map;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.AutoOffsetReset;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/** Kafka Streams, Processor API: a list of times per pair, or a count per user and minute. */
final class StreamsProcessor {
    static final Serde<long[]> TIMES = Serdes.serdeFrom(
            (topic, times) -> {
                ByteBuffer out = ByteBuffer.allocate(8 * times.length);
                out.asLongBuffer().put(times);
                return out.array();
            },
            (topic, bytes) -> {
                if (bytes == null) {
                    return null;
                }
                long[] times = new long[bytes.length / 8];
                ByteBuffer.wrap(bytes).asLongBuffer().get(times);
                return times;
            });

    public static void main(String[] arguments) {
        Topology topology = new Topology();
        topology.addSource(
                AutoOffsetReset.earliest(),
                "impressions",
                new StreamsRun.Clock(),
                new ByteArrayDeserializer(),
                StreamsRun.IMPRESSION.deserializer(),
                System.getenv("PEER_INPUT"));
        if (StreamsRun.rolling()) {
            topology.addProcessor("job", Rolling::new, "impressions").addStateStore(recent(), "job");
        } else {
            topology.addProcessor("job", Tumbling::new, "impressions").addStateStore(counts(), "job");
        }
        topology.addSink(
                "answers",
                System.getenv("PEER_OUTPUT"),
                new ByteArraySerializer(),
                new ByteArraySerializer(),
                "job");
        StreamsRun.run(topology, StreamsRun.settings());
    }

    static StoreBuilder<KeyValueStore<String, long[]>> recent() {
        return Stores.keyValueStoreBuilder(
                        StreamsRun.heap()
                                ? Stores.inMemoryKeyValueStore("recent")
                                : Stores.persistentKeyValueStore("recent"),
                        Serdes.String(),
                        TIMES)
                .withLoggingEnabled(Map.of());
    }

    static StoreBuilder<WindowStore<String, Long>> counts() {
        Duration minute = Duration.ofMinutes(1);
        Duration kept = Duration.ofMinutes(10);
        return Stores.windowStoreBuilder(
                        StreamsRun.heap()
                                ? Stores.inMemoryWindowStore("counts", kept, minute, false)
                                : Stores.persistentWindowStore("counts", kept, minute, false),
                        Serdes.String(),
                        Serdes.Long())
                .withLoggingEnabled(Map.of());
    }

    static final class Rolling implements Processor<byte[], Impression, byte[], byte[]> {
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<String, long[]> recent;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            recent = context.getStateStore("recent");
        }

        @Override
        public void process(Record<byte[], Impression> record) {
            Impression impression = record.value();
            String pair = impression.pair();
            long[] known = recent.get(pair);
            long[] times = Impression.with(known == null ? new long[0] : known, impression.ts);
            if (times != known) {
                recent.put(pair, times);
            }
            long until = Impression.until(times, impression.ts);
            if (until >= 0) {
                context.forward(record.withValue(
                        Impression.decision(impression.user, impression.event, until)));
            }
        }
    }

    static final class Tumbling implements Processor<byte[], Impression, byte[], byte[]> {
        private ProcessorContext<byte[], byte[]> context;
        private WindowStore<String, Long> counts;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            counts = context.getStateStore("counts");
        }

        @Override
        public void process(Record<byte[], Impression> record) {
            Impression impression = record.value();
            long window = impression.ts - impression.ts % Impression.MINUTE;
            Long known = counts.fetch(impression.user, window);
            long count = known == null ? 1 : known + 1;
            counts.put(impression.user, count, window);
            context.forward(record.withValue(
                    Impression.count(impression.user, impression.event, window, count)));
        }
    }

    private StreamsProcessor() {}
}
