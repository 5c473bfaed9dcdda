// Command capture is franz-go doing all that needs no group, so that scripts/capture-frames can record its requests.
//
// What the broker does not speak yet fails on the client's side and is named on standard error; nothing is checked here: the
// recorded frames are what counts. Usage: capture BOOTSTRAP
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const topic = "franz-go-records"

func attempt(name string, step func(context.Context) error) {
	limit, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	err := step(limit)
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(os.Args[1])}, options...)...)
	if err != nil {
		panic(err)
	}
	return made
}

func admin() {
	plain := client()
	defer plain.Close()
	admin := kadm.NewClient(plain)
	value := "1048576"
	configs := map[string]*string{"segment.bytes": &value}
	attempt("create", func(c context.Context) error { _, err := admin.CreateTopic(c, 3, 1, configs, topic); return err })
	attempt("create gone", func(c context.Context) error {
		_, err := admin.CreateTopics(c, -1, -1, nil, "franz-go-gone")
		return err
	})
	attempt("validate", func(c context.Context) error {
		_, err := admin.ValidateCreateTopics(c, 2, 1, nil, "franz-go-never")
		return err
	})
	attempt("metadata", func(c context.Context) error { _, err := admin.Metadata(c); return err })
	attempt("topics", func(c context.Context) error { _, err := admin.ListTopics(c, topic); return err })
	attempt("configs", func(c context.Context) error { _, err := admin.DescribeTopicConfigs(c, topic); return err })
	attempt("brokers", func(c context.Context) error { _, err := admin.DescribeBrokerConfigs(c, 1); return err })
	attempt("alter", func(c context.Context) error {
		change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("3600000")}}
		_, err := admin.AlterTopicConfigs(c, change, topic)
		return err
	})
	attempt("partitions", func(c context.Context) error { _, err := admin.CreatePartitions(c, 1, topic); return err })
	attempt("log dirs", func(c context.Context) error { _, err := admin.DescribeAllLogDirs(c, nil); return err })
	attempt("producers", func(c context.Context) error {
		_, err := admin.DescribeProducers(c, kadm.TopicsSet{topic: {0: {}}})
		return err
	})
	attempt("delete", func(c context.Context) error { _, err := admin.DeleteTopics(c, "franz-go-gone"); return err })
	attempt("start", func(c context.Context) error { _, err := admin.ListStartOffsets(c, topic); return err })
	attempt("end", func(c context.Context) error { _, err := admin.ListEndOffsets(c, topic); return err })
	attempt("committed", func(c context.Context) error { _, err := admin.ListCommittedOffsets(c, topic); return err })
	attempt("after", func(c context.Context) error { _, err := admin.ListOffsetsAfterMilli(c, 1, topic); return err })
	attempt("epochs", func(c context.Context) error {
		var wanted kadm.OffsetForLeaderEpochRequest
		wanted.Add(topic, 0, 0)
		_, err := admin.OffsetForLeaderEpoch(c, wanted)
		return err
	})
	attempt("api versions", func(c context.Context) error { _, err := admin.ApiVersions(c); return err })
	attempt("cluster", func(c context.Context) error {
		_, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(c, plain)
		return err
	})
}

func produce(name string, options ...kgo.Opt) {
	producer := client(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond))...)
	defer producer.Close()
	var records []*kgo.Record
	for number := range 30 {
		record := &kgo.Record{Topic: topic, Partition: int32(number % 3), Key: fmt.Appendf(nil, "key-%d", number)}
		if number%7 != 6 {
			record.Value = make([]byte, 20*number)
		}
		if number%5 == 0 {
			record.Headers = []kgo.RecordHeader{{Key: "header", Value: []byte("of a record")}, {Key: "empty"}}
		}
		records = append(records, record)
	}
	attempt("produce "+name, func(c context.Context) error { return producer.ProduceSync(c, records...).FirstErr() })
}

func consume(name string, options ...kgo.Opt) {
	start := kgo.NewOffset().AtStart()
	partitions := map[string]map[int32]kgo.Offset{topic: {0: start, 1: start, 2: kgo.NewOffset().AfterMilli(1)}}
	options = append(options, kgo.ConsumePartitions(partitions), kgo.FetchMaxWait(100*time.Millisecond), kgo.Rack("rack"))
	consumer := client(options...)
	defer consumer.Close()
	attempt("consume "+name, func(c context.Context) error {
		short, cancel := context.WithTimeout(c, 2*time.Second)
		defer cancel()
		for short.Err() == nil {
			consumer.PollFetches(short)
		}
		return nil
	})
}

func main() {
	admin()
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		produce(name, kgo.ProducerBatchCompression(codec))
	}
	produce("acks=1", kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
	produce("acks=0", kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck()))
	consume("uncommitted")
	consume("committed", kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	plain := client()
	defer plain.Close()
	attempt("delete records", func(c context.Context) error {
		before := kadm.Offsets{}
		before.Add(kadm.Offset{Topic: topic, Partition: 0, At: 1})
		_, err := kadm.NewClient(plain).DeleteRecords(c, before)
		return err
	})
}
