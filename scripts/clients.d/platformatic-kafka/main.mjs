// @platformatic/kafka in the client matrix; program.py says what the commands do.
//
// Its streams need a group; its `fetch` does not, and that is what reads here: requests by topic id and offset, answered with
// batches whose records are decoded and whose times and offsets are deltas. zstd is there with the Node versions that have it.

import { Admin, ConfigResourceTypes, Consumer, IncrementalAlterConfigOperationTypes, Producer } from '@platformatic/kafka'

import { main, pairs, Reading } from './program.mjs'

const SEND_RECORDS = 500
const FETCH_BYTES = 1024 * 1024
const EARLIEST = -2n
const LATEST = -1n
// What describeConfigs calls the source of a key that was set for the topic itself.
const TOPIC_SOURCE = 1

function optionsOf(bootstrap) {
  return { clientId: 'matrix', bootstrapBrokers: [bootstrap], retries: 3, autocreateTopics: false, timeout: 20_000 }
}

async function sendAll(producer, topic, compression, records) {
  for (let at = 0; at < records.length; at += SEND_RECORDS) {
    const some = records.slice(at, at + SEND_RECORDS)
    const messages = some.map(({ partition, time, key, value, headers }) => {
      // A map from buffers keeps headers of the same name apart: each key is an object of its own.
      const named = new Map(headers.map(([name, value]) => [Buffer.from(name), value]))
      return { topic, partition, timestamp: BigInt(time), key, value, headers: named }
    })
    for (const { partition, offset } of (await producer.send({ messages, compression })).offsets) {
      const first = some.find(record => record.partition === partition)
      if (Number(offset) !== first.offset) {
        throw new Error(`acknowledged at ${partition}/${offset} instead of ${first.offset}`)
      }
    }
  }
}

async function produce(bootstrap, topic, codec, records) {
  const producer = new Producer({ ...optionsOf(bootstrap), idempotent: true, acks: -1 })
  await sendAll(producer, topic, codec, records)
  await producer.close()
}

// One fetch of every partition that has not been read to its end.
async function fetchOnce(consumer, node, places, reading) {
  const wanted = new Map()
  for (const place of places.filter(place => place.next < place.end)) {
    const { topicId, partition, next } = place
    const partitions = wanted.get(topicId) ?? []
    partitions.push({
      partition,
      currentLeaderEpoch: -1,
      fetchOffset: BigInt(next),
      lastFetchedEpoch: -1,
      partitionMaxBytes: FETCH_BYTES
    })
    wanted.set(topicId, partitions)
  }
  const topics = [...wanted].map(([topicId, partitions]) => ({ topicId, partitions }))
  const { responses } = await consumer.fetch({ node, topics, minBytes: 1, maxBytes: 8 * FETCH_BYTES, maxWaitTime: 1000 })
  for (const { topicId, partitions } of responses) {
    for (const { partitionIndex, records: batches } of partitions) {
      const place = places.find(place => place.topicId === topicId && place.partition === partitionIndex)
      for (const { firstOffset, firstTimestamp, records } of batches ?? []) {
        for (const { offsetDelta, timestampDelta, key, value, headers } of records) {
          const offset = Number(firstOffset) + offsetDelta
          if (offset >= place.next) {
            const time = firstTimestamp + timestampDelta
            reading.add({ topic: place.topic, partition: partitionIndex, offset, time, key, value, headers })
            place.next = offset + 1
          }
        }
      }
    }
  }
}

async function consume(bootstrap, topics, path) {
  const consumer = new Consumer({ ...optionsOf(bootstrap), groupId: 'matrix-without-a-group' })
  const { brokers, topics: known } = await consumer.metadata({ topics })
  const offsets = timestamp => consumer.listOffsets({ topics, timestamp })
  const [starts, ends] = [await offsets(EARLIEST), await offsets(LATEST)]
  const places = topics.flatMap(topic => ends.get(topic).map((end, partition) => {
    const next = Number(starts.get(topic)[partition])
    return { topic, topicId: known.get(topic).id, partition, next, end: Number(end) }
  }))
  const reading = new Reading(path, new Map(places.map(({ topic, partition, end }) => [`${topic}/${partition}`, end])))
  while (reading.goesOn()) {
    await fetchOnce(consumer, [...brokers.keys()][0], places, reading)
  }
  await consumer.close()
}

async function admin(bootstrap) {
  const admin = new Admin(optionsOf(bootstrap))
  const resource = topic => ({ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic })
  const entries = async topic => {
    const settings = { includeSynonyms: false, includeDocumentation: false }
    return (await admin.describeConfigs({ resources: [resource(topic)], ...settings }))[0].configs
  }
  const named = configs => pairs(configs).map(([name, value]) => ({ name, value }))
  const change = async (topic, configs) => {
    await admin.incrementalAlterConfigs({ resources: [{ ...resource(topic), configs }] })
  }
  const { DELETE, SET } = IncrementalAlterConfigOperationTypes
  return {
    async create(topic, partitions, ...configs) {
      await admin.createTopics({ topics: [topic], partitions: Number(partitions), replicas: 1, configs: named(configs) })
    },
    list: () => admin.listTopics(),
    async describe(topic) {
      const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
      return topics.get(topic).partitions.map(({ leader }, partition) => `${partition}=${leader}`)
    },
    async cluster() {
      const { brokers, controllerId } = await admin.metadata({ topics: [], forceUpdate: true })
      return [controllerId, ...[...brokers].map(([id, { host, port }]) => `${id}=${host}:${port}`)]
    },
    async partitions(topic, total) {
      await admin.createPartitions({ topics: [{ name: topic, count: Number(total) }] })
    },
    configs: async topic => (await entries(topic)).map(({ name, value }) => `${name}=${value}`),
    altered: async topic => (await entries(topic)).filter(e => e.configSource === TOPIC_SOURCE).map(e => e.name),
    alter: (topic, ...configs) => change(topic, named(configs).map(config => ({ ...config, configOperation: SET }))),
    reset: (topic, ...names) => change(topic, names.map(name => ({ name, configOperation: DELETE }))),
    async replace(topic, ...configs) {
      await admin.alterConfigs({ resources: [{ ...resource(topic), configs: named(configs) }] })
    },
    async produce(topic, partition, ...times) {
      const producer = new Producer(optionsOf(bootstrap))
      const value = Buffer.from('admin')
      const messages = times.map(time => ({ topic, partition: Number(partition), timestamp: BigInt(time), value }))
      await producer.send({ messages, acks: -1 })
      await producer.close()
    },
    async offset(topic, partition, which) {
      const timestamp = { earliest: EARLIEST, latest: LATEST }[which] ?? BigInt(which)
      const partitions = [{ partitionIndex: Number(partition), timestamp }]
      return [(await admin.listOffsets({ topics: [{ name: topic, partitions }] }))[0].partitions[0].offset]
    },
    async 'delete-records'(topic, partition, before) {
      const partitions = [{ partition: Number(partition), offset: BigInt(before) }]
      return [(await admin.deleteRecords({ topics: [{ name: topic, partitions }] }))[0].partitions[0].lowWatermark]
    },
    async 'log-dirs'(topic, ...partitions) {
      const found = await admin.describeLogDirs({ topics: [{ name: topic, partitions: partitions.map(Number) }] })
      return found.flatMap(({ results }) => results).flatMap(({ topics }) => topics)
        .filter(({ name }) => name === topic)
        .flatMap(({ partitions }) => partitions.map(one => `${one.partitionIndex}=${one.partitionSize}`))
    },
    async delete(topic) {
      await admin.deleteTopics({ topics: [topic] })
    }
  }
}

await main({ produce, consume, admin })
