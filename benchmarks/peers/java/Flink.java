import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Optional;
import java.util.stream.Stream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.CoreOptions;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Apache Flink on its embedded mini-cluster: one process, parallelism one. */
public final class Flink {
    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(System.getenv("PEER_FOLDER"));
        Path checkpoints = Files.createDirectories(folder.resolve("checkpoints"));
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(1, settings(folder, checkpoints));
        boolean rolling = System.getenv("PEER_JOB").equals("rolling");
        DataStream<Impression> impressions = environment.fromSource(
                source(), rolling ? WatermarkStrategy.noWatermarks() : eventTime(), "impressions");
        DataStream<Answer> answers = rolling
                ? keyed(impressions, Impression::pair).process(new Rolling())
                : keyed(impressions, impression -> impression.user)
                        .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
                        .aggregate(new Count(), new Closed());
        answers.sinkTo(sink());
        environment.execute(System.getenv("PEER_GROUP"));
    }

    /** Without `keyBy`'s exchange between two threads: with parallelism one every key is here. */
    static KeyedStream<Impression, String> keyed(
            DataStream<Impression> impressions, KeySelector<Impression, String> key) {
        return DataStreamUtils.reinterpretAsKeyedStream(impressions, key);
    }

    static Configuration settings(Path folder, Path checkpoints) throws IOException {
        Configuration settings = new Configuration();
        boolean heap = System.getenv("PEER_STATE").equals("heap");
        settings.set(StateBackendOptions.STATE_BACKEND, heap ? "hashmap" : "rocksdb");
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, checkpoints.toUri().toString());
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofSeconds(1));
        settings.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.AT_LEAST_ONCE);
        settings.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, true);
        settings.set(
                CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
                ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        settings.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ofMebiBytes(heap ? 64 : 1024));
        settings.set(CoreOptions.TMP_DIRS, folder.toString());
        newest(checkpoints).ifPresent(
                checkpoint -> settings.set(StateRecoveryOptions.SAVEPOINT_PATH, checkpoint.toUri().toString()));
        return settings;
    }

    /** The last complete checkpoint of an earlier process, which a killed one goes on from. */
    static Optional<Path> newest(Path checkpoints) throws IOException {
        try (Stream<Path> files = Files.walk(checkpoints, 3)) {
            return files.filter(file -> file.endsWith("_metadata"))
                    .max(Comparator.comparing(file -> file.toFile().lastModified()))
                    .map(Path::getParent);
        }
    }

    static KafkaSource<Impression> source() {
        return KafkaSource.<Impression>builder()
                .setBootstrapServers(System.getenv("PEER_BOOTSTRAP"))
                .setTopics(System.getenv("PEER_INPUT"))
                .setGroupId(System.getenv("PEER_GROUP"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new AbstractDeserializationSchema<Impression>() {
                    @Override
                    public Impression deserialize(byte[] json) {
                        return Impression.parse(json);
                    }
                })
                .build();
    }

    static WatermarkStrategy<Impression> eventTime() {
        return WatermarkStrategy.<Impression>forMonotonousTimestamps()
                .withTimestampAssigner((impression, timestamp) -> impression.ts);
    }

    static KafkaSink<Answer> sink() {
        String topic = System.getenv("PEER_OUTPUT");
        KafkaRecordSerializationSchema<Answer> schema = (answer, context, timestamp) ->
                new ProducerRecord<>(topic, Impression.bytes(answer.user), answer.json);
        return KafkaSink.<Answer>builder()
                .setBootstrapServers(System.getenv("PEER_BOOTSTRAP"))
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setProperty("acks", "all")
                .setRecordSerializer(schema)
                .build();
    }

    public static final class Answer {
        public String user;
        public byte[] json;

        static Answer of(String user, byte[] json) {
            Answer answer = new Answer();
            answer.user = user;
            answer.json = json;
            return answer;
        }
    }

    static final class Rolling extends KeyedProcessFunction<String, Impression, Answer> {
        private transient ValueState<long[]> recent;

        @Override
        public void open(OpenContext context) {
            recent = getRuntimeContext().getState(new ValueStateDescriptor<>("recent", long[].class));
        }

        @Override
        public void processElement(Impression impression, Context context, Collector<Answer> out)
                throws Exception {
            long[] known = recent.value();
            long[] times = Impression.with(known == null ? new long[0] : known, impression.ts);
            if (times != known) {
                recent.update(times);
            }
            long until = Impression.until(times, impression.ts);
            if (until >= 0) {
                out.collect(Answer.of(
                        impression.user, Impression.decision(impression.user, impression.event, until)));
            }
        }
    }

    public static final class Counted {
        public long count;
        public String event;
    }

    static final class Count implements AggregateFunction<Impression, Counted, Counted> {
        @Override
        public Counted createAccumulator() {
            return new Counted();
        }

        @Override
        public Counted add(Impression impression, Counted counted) {
            counted.count++;
            counted.event = impression.event;
            return counted;
        }

        @Override
        public Counted getResult(Counted counted) {
            return counted;
        }

        @Override
        public Counted merge(Counted one, Counted other) {
            throw new UnsupportedOperationException("tumbling windows do not merge");
        }
    }

    static final class Closed extends ProcessWindowFunction<Counted, Answer, String, TimeWindow> {
        @Override
        public void process(String user, Context context, Iterable<Counted> one, Collector<Answer> out) {
            Counted counted = one.iterator().next();
            out.collect(Answer.of(
                    user,
                    Impression.count(user, counted.event, context.window().getStart(), counted.count)));
        }
    }
}
