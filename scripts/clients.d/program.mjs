// The command line of a program of the client matrix, for those in JavaScript: what program.py is for those in Python.
//
// The commands, the lines of records and the answers of `admin` are described in program.py and records.py. This file turns
// lines into records and back and runs one command; it knows no client.

import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

// Milliseconds without anything new after which a program gives up.
export const SILENCE_MS = 20_000

const bytesOrNull = text => (text === '-' ? null : Buffer.from(text, 'hex'))
const textOrNull = bytes => (bytes === null || bytes === undefined ? '-' : Buffer.from(bytes).toString('hex'))

function recordOf(line) {
  const [topic, partition, offset, time, key, value, headers] = line.split('\t')
  const pairs = headers === '' ? [] : headers.split(',').map(pair => pair.split(':'))
  return {
    topic,
    partition: Number(partition),
    offset: Number(offset),
    time,
    key: bytesOrNull(key),
    value: bytesOrNull(value),
    headers: pairs.map(([name, value]) => [Buffer.from(name, 'hex').toString(), bytesOrNull(value)])
  }
}

export function readRecords(path) {
  return readFileSync(path, 'ascii').split('\n').filter(line => line !== '').map(recordOf)
}

// What a consumer has still to read, and the file that takes it. `ends` maps `topic/partition` to the end's offset.
export class Reading {
  constructor(path, ends) {
    this.path = path
    this.lines = []
    this.left = new Map([...ends].filter(([, end]) => end > 0))
    this.last = Date.now()
    writeFileSync(path, '')
  }

  // headers: pairs of a name and a value, in order.
  add({ topic, partition, offset, time, key, value, headers }) {
    const pairs = headers.map(([name, value]) => `${textOrNull(Buffer.from(name))}:${textOrNull(value)}`)
    this.lines.push([topic, partition, offset, time, textOrNull(key), textOrNull(value), pairs.join(',')].join('\t') + '\n')
    this.last = Date.now()
    if (Number(offset) + 1 >= (this.left.get(`${topic}/${partition}`) ?? Infinity)) {
      this.left.delete(`${topic}/${partition}`)
    }
  }

  goesOn() {
    appendFileSync(this.path, this.lines.join(''))
    this.lines = []
    if (this.left.size > 0 && Date.now() - this.last > SILENCE_MS) {
      throw new Error(`nothing read for ${SILENCE_MS} ms, not at the end of ${[...this.left.keys()].slice(0, 3)}`)
    }
    return this.left.size > 0
  }
}

// The error with the errors that it wraps, on one line.
function textOf(error) {
  const inner = [...(error.errors ?? []), ...(error.cause ? [error.cause] : [])].map(textOf)
  return [`${error.name}: ${error.type ?? error.code ?? ''} ${error.message}`, ...inner].join(' < ').replace(/\s+/g, ' ')
}

async function answer(calls, request) {
  const [name, ...rest] = request.split('\t')
  if (typeof calls[name] !== 'function') {
    return ['lacks']
  }
  try {
    return ['ok', ...((await calls[name](...rest)) ?? [])]
  } catch (error) {
    return ['error', textOf(error)]
  }
}

// KEY=VALUE arguments as a list of pairs.
export function pairs(configs) {
  return configs.map(config => [config.slice(0, config.indexOf('=')), config.slice(config.indexOf('=') + 1)])
}

// Runs one command: produce(bootstrap, topic, codec, records), consume(bootstrap, topics, path), admin(bootstrap) -> calls.
export async function main({ produce, consume, admin }) {
  const [command, bootstrap, ...rest] = process.argv.slice(2)
  try {
    if (command === 'produce') {
      await produce(bootstrap, rest[0], rest[1], readRecords(rest[2]))
    } else if (command === 'consume') {
      await consume(bootstrap, rest.slice(1), rest[0])
    } else if (command === 'admin') {
      const calls = await admin(bootstrap)
      for await (const request of createInterface({ input: process.stdin })) {
        console.log((await answer(calls, request)).join('\t'))
      }
    } else {
      throw new Error(`unknown command '${command}'`)
    }
    process.exit(0)
  } catch (error) {
    console.error(error)
    console.error(`${command}: ${textOf(error)}`)
    process.exit(1)
  }
}
