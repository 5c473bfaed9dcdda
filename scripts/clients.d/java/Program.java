// Kafka's own Java client in the client matrix; program.py says what the commands do.
//
// It reads by assignment, without a group, and produces as it does by default: idempotent, five requests in flight. The lines of
// records are described in records.py.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Program {
    private static final long SILENCE_SECONDS = 20;
    private static final HexFormat HEX = HexFormat.of();

    private Program() {}

    private static byte[] bytesOrNull(String text) {
        return text.equals("-") ? null : HEX.parseHex(text);
    }

    private static String textOrNull(byte[] data) {
        return data == null ? "-" : HEX.formatHex(data);
    }

    private static <T> T within(Future<T> future) throws Exception {
        return future.get(SILENCE_SECONDS, TimeUnit.SECONDS);
    }

    private static Properties settings(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("request.timeout.ms", "20000");
        settings.put("default.api.timeout.ms", "20000");
        return settings;
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, String codec) {
        Properties settings = settings(bootstrap);
        settings.put("acks", "all");
        settings.put("compression.type", codec);
        settings.put("delivery.timeout.ms", "40000");
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap) {
        Properties settings = settings(bootstrap);
        settings.put("auto.offset.reset", "none");
        settings.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static ProducerRecord<byte[], byte[]> sent(String[] fields) {
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(fields[0], Integer.valueOf(fields[1]),
                Long.valueOf(fields[3]), bytesOrNull(fields[4]), bytesOrNull(fields[5]));
        for (String pair : fields[6].split(",")) {
            if (!pair.isEmpty()) {
                int colon = pair.indexOf(':');
                String name = new String(HEX.parseHex(pair.substring(0, colon)), StandardCharsets.UTF_8);
                record.headers().add(name, bytesOrNull(pair.substring(colon + 1)));
            }
        }
        return record;
    }

    private static void produce(String bootstrap, String codec, Path path) throws Exception {
        List<String[]> lines = new ArrayList<>();
        List<Future<RecordMetadata>> acknowledged = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, codec)) {
            for (String line : Files.readAllLines(path)) {
                String[] fields = line.split("\t", -1);
                lines.add(fields);
                acknowledged.add(producer.send(sent(fields)));
            }
            producer.flush();
        }
        for (int at = 0; at < lines.size(); at++) {
            RecordMetadata place = within(acknowledged.get(at));
            if (place.offset() != Long.parseLong(lines.get(at)[2])) {
                throw new IllegalStateException("acknowledged at " + place + " instead of " + lines.get(at)[2]);
            }
        }
    }

    private static String lineOf(ConsumerRecord<byte[], byte[]> record) {
        List<String> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(HEX.formatHex(header.key().getBytes(StandardCharsets.UTF_8)) + ":" + textOrNull(header.value()));
        }
        return String.join("\t", record.topic(), Integer.toString(record.partition()), Long.toString(record.offset()),
                Long.toString(record.timestamp()), textOrNull(record.key()), textOrNull(record.value()),
                String.join(",", headers));
    }

    private static void consume(String bootstrap, Path path, List<String> topics) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap);
                PrintWriter file = new PrintWriter(Files.newBufferedWriter(path))) {
            List<TopicPartition> places = new ArrayList<>();
            for (String topic : topics) {
                consumer.partitionsFor(topic).forEach(info -> places.add(new TopicPartition(topic, info.partition())));
            }
            consumer.assign(places);
            consumer.seekToBeginning(places);
            Map<TopicPartition, Long> left = new HashMap<>(consumer.endOffsets(places));
            left.values().removeIf(end -> end == 0);
            long last = System.nanoTime();
            while (!left.isEmpty()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    file.print(lineOf(record) + "\n");
                    TopicPartition place = new TopicPartition(record.topic(), record.partition());
                    left.computeIfPresent(place, (key, end) -> record.offset() + 1 >= end ? null : end);
                    last = System.nanoTime();
                }
                if (System.nanoTime() - last > TimeUnit.SECONDS.toNanos(SILENCE_SECONDS)) {
                    throw new IllegalStateException("nothing read for " + SILENCE_SECONDS + " s, not at the end of " + left);
                }
            }
        }
    }

    private static Map<String, String> pairs(List<String> configs) {
        return configs.stream().map(config -> config.split("=", 2)).collect(Collectors.toMap(pair -> pair[0], pair -> pair[1]));
    }

    private record Calls(String bootstrap, Admin admin) {
        private static ConfigResource resource(String topic) {
            return new ConfigResource(ConfigResource.Type.TOPIC, topic);
        }

        private Map<Integer, Integer> leaders(String topic) throws Exception {
            return within(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().stream()
                    .collect(Collectors.toMap(info -> info.partition(), info -> info.leader().id()));
        }

        private List<ConfigEntry> entries(String topic) throws Exception {
            return List.copyOf(within(admin.describeConfigs(List.of(resource(topic))).all()).get(resource(topic)).entries());
        }

        private void alter(String topic, AlterConfigOp.OpType kind, Map<String, String> configs) throws Exception {
            List<AlterConfigOp> changes = configs.entrySet().stream()
                    .map(pair -> new AlterConfigOp(new ConfigEntry(pair.getKey(), pair.getValue()), kind)).toList();
            within(admin.incrementalAlterConfigs(Map.of(resource(topic), changes)).all());
        }

        private List<String> cluster() throws Exception {
            List<String> fields = new ArrayList<>();
            fields.add(within(admin.describeCluster().controller()).idString());
            for (Node node : within(admin.describeCluster().nodes())) {
                fields.add(node.id() + "=" + node.host() + ":" + node.port());
            }
            return fields;
        }

        private void produce(String topic, int partition, List<String> times) throws Exception {
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "none")) {
                for (String time : times) {
                    within(producer.send(new ProducerRecord<>(topic, partition, Long.valueOf(time), null, "admin".getBytes())));
                }
            }
        }

        private long offset(TopicPartition place, String which) throws Exception {
            OffsetSpec spec = switch (which) {
                case "earliest" -> OffsetSpec.earliest();
                case "latest" -> OffsetSpec.latest();
                default -> OffsetSpec.forTimestamp(Long.parseLong(which));
            };
            return within(admin.listOffsets(Map.of(place, spec)).partitionResult(place)).offset();
        }

        private List<String> logDirs(String topic) throws Exception {
            List<Integer> brokers = within(admin.describeCluster().nodes()).stream().map(Node::id).toList();
            List<String> fields = new ArrayList<>();
            for (var directories : within(admin.describeLogDirs(brokers).allDescriptions()).values()) {
                for (var directory : directories.values()) {
                    directory.replicaInfos().forEach((place, info) -> {
                        if (place.topic().equals(topic)) {
                            fields.add(place.partition() + "=" + info.size());
                        }
                    });
                }
            }
            return fields;
        }

        private List<String> call(String name, List<String> arguments) throws Exception {
            switch (name) {
                case "cluster":
                    return cluster();
                case "list":
                    return List.copyOf(within(admin.listTopics().names()));
                default:
                    return callOfTopic(name, arguments.get(0), arguments.subList(1, arguments.size()));
            }
        }

        private List<String> callOfTopic(String name, String topic, List<String> rest) throws Exception {
            switch (name) {
                case "create":
                    NewTopic topicWanted = new NewTopic(topic, Optional.of(Integer.valueOf(rest.get(0))), Optional.empty());
                    within(admin.createTopics(List.of(topicWanted.configs(pairs(rest.subList(1, rest.size()))))).all());
                    return List.of();
                case "describe":
                    return leaders(topic).entrySet().stream().map(pair -> pair.getKey() + "=" + pair.getValue()).toList();
                case "partitions":
                    within(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(Integer.parseInt(rest.get(0))))).all());
                    return List.of();
                case "configs":
                    return entries(topic).stream().map(entry -> entry.name() + "=" + entry.value()).toList();
                case "altered":
                    return entries(topic).stream()
                            .filter(entry -> entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
                            .map(ConfigEntry::name).toList();
                case "alter":
                    alter(topic, AlterConfigOp.OpType.SET, pairs(rest));
                    return List.of();
                case "reset":
                    alter(topic, AlterConfigOp.OpType.DELETE, rest.stream().collect(Collectors.toMap(key -> key, key -> "")));
                    return List.of();
                case "delete":
                    within(admin.deleteTopics(List.of(topic)).all());
                    return List.of();
                default:
                    return callOfPartition(name, new TopicPartition(topic, Integer.parseInt(rest.get(0))),
                            rest.subList(1, rest.size()));
            }
        }

        private List<String> callOfPartition(String name, TopicPartition place, List<String> rest) throws Exception {
            switch (name) {
                case "produce":
                    produce(place.topic(), place.partition(), rest);
                    return List.of();
                case "offset":
                    return List.of(Long.toString(offset(place, rest.get(0))));
                case "delete-records":
                    Map<TopicPartition, RecordsToDelete> wanted =
                            Map.of(place, RecordsToDelete.beforeOffset(Long.parseLong(rest.get(0))));
                    long low = within(admin.deleteRecords(wanted).lowWatermarks().get(place)).lowWatermark();
                    return List.of(Long.toString(low));
                case "log-dirs":
                    return logDirs(place.topic());
                default:
                    throw new IllegalArgumentException("unknown request " + name);
            }
        }
    }

    private static String answer(Calls calls, String request) {
        List<String> words = Arrays.asList(request.split("\t", -1));
        // The old call that replaces all keys of a topic left this client with 4.0.
        if (words.get(0).equals("replace")) {
            return "lacks";
        }
        try {
            List<String> fields = new ArrayList<>(List.of("ok"));
            fields.addAll(calls.call(words.get(0), words.subList(1, words.size())));
            return String.join("\t", fields);
        } catch (Exception error) {
            return "error\t" + error.toString().replace('\n', ' ').replace('\t', ' ');
        }
    }

    private static void administer(String bootstrap) throws Exception {
        try (Admin admin = Admin.create(settings(bootstrap))) {
            Calls calls = new Calls(bootstrap, admin);
            BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
            for (String request = requests.readLine(); request != null; request = requests.readLine()) {
                System.out.println(answer(calls, request));
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "produce" -> produce(arguments[1], arguments[3], Path.of(arguments[4]));
            case "consume" -> consume(arguments[1], Path.of(arguments[2]), Arrays.asList(arguments).subList(3, arguments.length));
            case "admin" -> administer(arguments[1]);
            default -> throw new IllegalArgumentException("unknown command " + arguments[0]);
        }
    }
}
