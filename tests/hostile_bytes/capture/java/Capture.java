// The Java client doing all that needs no group, so that its requests can be recorded by scripts/capture-frames.
//
// Whatever the broker does not speak yet fails on the client's side and is named on standard error; nothing is checked
// here: the recorded frames are what counts. Usage: Capture BOOTSTRAP

import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

class Capture {
    static final String TOPIC = "java-records";

    interface Step { Object run() throws Exception; }

    static void attempt(String name, Step step) {
        try {
            Object outcome = step.run();
            if (outcome instanceof KafkaFuture<?> future) future.get(10, TimeUnit.SECONDS);
            System.err.println(name + ": ok");
        } catch (Exception error) {
            System.err.println(name + ": " + error);
        }
    }

    public static void main(String[] arguments) {
        String bootstrap = arguments[0];
        admin(bootstrap);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) produce(bootstrap, codec, "all", true);
        produce(bootstrap, "none", "1", false);
        produce(bootstrap, "none", "0", false);
        for (String isolation : List.of("read_uncommitted", "read_committed")) consume(bootstrap, isolation);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var before = Map.of(new TopicPartition(TOPIC, 0), RecordsToDelete.beforeOffset(1));
            attempt("deleteRecords", () -> admin.deleteRecords(before).all());
        }
    }

    static void admin(String bootstrap) {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap, "request.timeout.ms", "5000",
            "default.api.timeout.ms", "8000"))) {
            var topics = List.of(new NewTopic(TOPIC, 3, (short) 1).configs(Map.of("segment.bytes", "1048576")),
                new NewTopic("java-gone", Map.of(0, List.of(1))));
            attempt("createTopics", () -> admin.createTopics(topics).all());
            attempt("validateTopics",
                () -> admin.createTopics(List.of(new NewTopic("java-never", 2, (short) 1)),
                    new CreateTopicsOptions().validateOnly(true)).all());
            attempt("listTopics", () -> admin.listTopics().names());
            attempt("describeTopics", () -> admin.describeTopics(List.of(TOPIC)).allTopicNames());
            attempt("describeCluster", () -> admin.describeCluster().nodes());
            var resources = List.of(new ConfigResource(ConfigResource.Type.TOPIC, TOPIC),
                new ConfigResource(ConfigResource.Type.BROKER, "1"));
            attempt("describeConfigs", () -> admin.describeConfigs(resources).all());
            var change = new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
            attempt("incrementalAlterConfigs",
                () -> admin.incrementalAlterConfigs(Map.of(resources.get(0), List.of(change))).all());
            attempt("createPartitions", () -> admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(4))).all());
            attempt("describeLogDirs", () -> admin.describeLogDirs(List.of(1)).allDescriptions());
            attempt("describeProducers",
                () -> admin.describeProducers(List.of(new TopicPartition(TOPIC, 0))).all());
            attempt("describeFeatures", () -> admin.describeFeatures().featureMetadata());
            attempt("deleteTopics", () -> admin.deleteTopics(List.of("java-gone")).all());
            var specs = Map.of(new TopicPartition(TOPIC, 0), OffsetSpec.latest(), new TopicPartition(TOPIC, 1),
                OffsetSpec.maxTimestamp(), new TopicPartition(TOPIC, 2), OffsetSpec.forTimestamp(1));
            attempt("listOffsets", () -> admin.listOffsets(specs).all());
        }
    }

    static void produce(String bootstrap, String codec, String acks, boolean idempotence) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "compression.type", codec, "acks", acks,
            "enable.idempotence", idempotence, "linger.ms", 20, "delivery.timeout.ms", 9000, "request.timeout.ms", 5000);
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(config, bytes, bytes)) {
            for (int number = 0; number < 30; number++) {
                byte[] value = number % 7 == 6 ? null : "a value that is repeated ".repeat(number).getBytes();
                byte[] key = number % 3 == 2 ? null : ("key-" + number).getBytes();
                var record = new ProducerRecord<>(TOPIC, number % 3, (Long) null, key, value);
                if (number % 5 == 0) record.headers().add("header", "of a record".getBytes()).add("empty", null);
                producer.send(record);
            }
            attempt("produce " + codec + " acks=" + acks, () -> { producer.flush(); return null; });
        }
    }

    static void consume(String bootstrap, String isolation) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "isolation.level", isolation,
            "client.rack", "rack", "fetch.max.wait.ms", 50, "request.timeout.ms", 5000, "default.api.timeout.ms", 8000);
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            var partitions = List.of(new TopicPartition(TOPIC, 0), new TopicPartition(TOPIC, 1));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            attempt("poll " + isolation, () -> {
                int records = 0;
                for (int round = 0; round < 10; round++) records += consumer.poll(Duration.ofMillis(200)).count();
                return records;
            });
            consumer.assign(partitions.subList(0, 1));
            attempt("poll fewer", () -> consumer.poll(Duration.ofMillis(300)));
            attempt("offsetsForTimes", () -> consumer.offsetsForTimes(Map.of(partitions.get(0), 1L)));
            attempt("endOffsets", () -> consumer.endOffsets(partitions));
            attempt("beginningOffsets", () -> consumer.beginningOffsets(partitions));
            attempt("partitionsFor", () -> consumer.partitionsFor(TOPIC));
        }
    }
}
