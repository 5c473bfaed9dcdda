// kafkajs in the client matrix; program.py says what the commands do.
//
// It brings gzip; snappy, lz4 and zstd are registered as its documentation shows. It has no consumer without a group. The
// headers of a record are an object: names in the order of their first value, several values of a name as an array.

import { compress, decompress, init } from '@bokuweb/zstd-wasm'
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import { compressFrame, decompressFrame } from 'lz4-napi'

import { main, pairs, Reading, SILENCE_MS } from './program.mjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel, Partitioners } = kafkajs

await init()
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => compressFrame(encoder.buffer),
  decompress: buffer => decompressFrame(buffer)
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(decompress(buffer))
})
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD
}
// What describeConfigs calls the source of a key that was set for the topic itself.
const TOPIC_SOURCE = 1
const SEND_RECORDS = 500

function clientOf(bootstrap) {
  return new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 3 }, connectionTimeout: 5000 })
}

function headersOf(headers) {
  const named = {}
  for (const [name, value] of headers) {
    named[name] = name in named ? [named[name], value].flat() : value
  }
  return named
}

async function sendAll(producer, topic, compression, records) {
  const settings = { topic, acks: -1, compression }
  for (let at = 0; at < records.length; at += SEND_RECORDS) {
    const some = records.slice(at, at + SEND_RECORDS)
    const messages = some.map(({ partition, time, key, value, headers }) => {
      return { partition, timestamp: time, key, value, headers: headersOf(headers) }
    })
    for (const { partition, baseOffset, errorCode } of await producer.send({ ...settings, messages })) {
      const first = some.find(record => record.partition === partition)
      if (errorCode !== 0 || Number(baseOffset) !== first.offset) {
        throw new Error(`error ${errorCode}, ${partition}/${baseOffset} instead of ${first.offset}`)
      }
    }
  }
}

async function produce(bootstrap, topic, codec, records) {
  const settings = { idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner }
  const producer = clientOf(bootstrap).producer(settings)
  await producer.connect()
  await sendAll(producer, topic, CODECS[codec], records)
  await producer.disconnect()
}

async function endsOf(client, topics) {
  const admin = client.admin()
  await admin.connect()
  const ends = new Map()
  for (const topic of topics) {
    for (const { partition, high } of await admin.fetchTopicOffsets(topic)) {
      ends.set(`${topic}/${partition}`, Number(high))
    }
  }
  await admin.disconnect()
  return ends
}

async function consume(bootstrap, topics, path) {
  const client = clientOf(bootstrap)
  const reading = new Reading(path, await endsOf(client, topics))
  const consumer = client.consumer({ groupId: `matrix-${process.pid}`, allowAutoTopicCreation: false })
  await consumer.connect()
  await consumer.subscribe({ topics, fromBeginning: true })
  const crashed = new Promise((_, reject) => consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error)))
  await Promise.race([crashed, consumer.run({
    eachMessage: async ({ topic, partition, message }) => {
      const headers = Object.entries(message.headers).flatMap(([name, value]) => [value].flat().map(one => [name, one]))
      reading.add({ topic, partition, time: message.timestamp, ...message, headers })
    }
  })])
  while (reading.goesOn()) {
    await Promise.race([crashed, new Promise(resolve => setTimeout(resolve, SILENCE_MS / 100))])
  }
}

async function admin(bootstrap) {
  const client = clientOf(bootstrap)
  const admin = client.admin()
  await admin.connect()
  const resource = topic => ({ type: ConfigResourceTypes.TOPIC, name: topic })
  const entries = async topic => {
    const settings = { resources: [resource(topic)], includeSynonyms: false }
    return (await admin.describeConfigs(settings)).resources[0].configEntries
  }
  const configEntries = configs => pairs(configs).map(([name, value]) => ({ name, value }))
  return {
    async create(topic, numPartitions, ...configs) {
      const wanted = { topic, numPartitions: Number(numPartitions), configEntries: configEntries(configs) }
      if (!await admin.createTopics({ topics: [wanted] })) {
        throw new Error('the topic already exists')
      }
    },
    list: () => admin.listTopics(),
    async describe(topic) {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      return topics[0].partitions.map(({ partitionId, leader }) => `${partitionId}=${leader}`)
    },
    async cluster() {
      const { brokers, controller } = await admin.describeCluster()
      return [controller, ...brokers.map(({ nodeId, host, port }) => `${nodeId}=${host}:${port}`)]
    },
    async partitions(topic, total) {
      await admin.createPartitions({ topicPartitions: [{ topic, count: Number(total) }] })
    },
    configs: async topic => (await entries(topic)).map(entry => `${entry.configName}=${entry.configValue}`),
    altered: async topic => (await entries(topic)).filter(e => e.configSource === TOPIC_SOURCE).map(e => e.configName),
    async replace(topic, ...configs) {
      const wanted = { ...resource(topic), configEntries: configEntries(configs) }
      await admin.alterConfigs({ validateOnly: false, resources: [wanted] })
    },
    async produce(topic, partition, ...times) {
      const producer = client.producer({ createPartitioner: Partitioners.DefaultPartitioner })
      await producer.connect()
      const messages = times.map(timestamp => ({ partition: Number(partition), timestamp, value: 'admin' }))
      await producer.send({ topic, messages })
      await producer.disconnect()
    },
    async offset(topic, partition, which) {
      const named = { earliest: 'low', latest: 'high' }
      const all = which in named ? await admin.fetchTopicOffsets(topic)
        : await admin.fetchTopicOffsetsByTimestamp(topic, Number(which))
      return [all.find(one => one.partition === Number(partition))[named[which] ?? 'offset']]
    },
    async 'delete-records'(topic, partition, offset) {
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: Number(partition), offset }] })
      return ['-']
    },
    async delete(topic) {
      await admin.deleteTopics({ topics: [topic] })
    }
  }
}

await main({ produce, consume, admin })
