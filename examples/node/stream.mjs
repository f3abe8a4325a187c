// Streams the answers to several questions at once. All requests share one queue, and one wait on one worker thread.
//   npm install koffi && node stream.mjs MODEL "What is a galley?" "What is a proof sheet?"
// GALLEY_LIBRARY is the path of libgalley.so.0, if the loader does not find it by its name.

import koffi from 'koffi'
import { promisify } from 'node:util'
const lib = koffi.load(process.env.GALLEY_LIBRARY ?? 'libgalley.so.0')
for (const name of ['error', 'engine', 'queue']) koffi.opaque(`galley_${name}`)
const EVENT = koffi.struct('galley_event', {
  size: 'uint32_t', kind: 'uint32_t', id: 'uint64_t', tag: 'uint64_t', flags: 'uint32_t', index: 'uint32_t',
  token: 'uint32_t', logprob: 'float', drafter: 'int32_t', position: 'uint32_t', text: 'void *', text_len: 'size_t',
  top: 'void *', n_top: 'size_t', json: 'void *', json_len: 'size_t', ticket: 'uint64_t',
})
const [ERROR, IS_LAST, ROOM, SIZE] = [3, 2, 64, koffi.sizeof(EVENT)]
const errorMessage = lib.func('const char *galley_error_message(galley_error *error)')
const errorFree = lib.func('void galley_error_free(galley_error *error)')
const f = (name, args) => lib.func(`galley_error *galley_${name}(${args})`)
const engineOpen = f('engine_open', 'str json, size_t n, void *progress, void *user, _Out_ galley_engine **out')
const engineClose = f('engine_close', 'galley_engine *engine')
const queueOpen = f('queue_open', 'galley_engine *engine, size_t capacity, _Out_ galley_queue **out')
const queueWait = f('queue_wait', 'galley_queue *q, int64_t ms, void *events, size_t size, size_t room, _Out_ size_t *n')
const queueRelease = f('queue_release', 'galley_queue *queue, void *events, size_t size, size_t n')
const queueClose = f('queue_close', 'galley_queue *queue')
const submit = f('submit', 'galley_queue *q, str json, size_t n, void *, size_t, uint64_t tag, _Out_ uint64_t *id, void *')
const cancel = f('cancel', 'galley_queue *queue, uint64_t id')

function check(error) {
  if (error) try { throw new Error(errorMessage(error)) } finally { errorFree(error) }
}

class Engine {
  #handle; #queue; #reading; #tag = 0; #streams = new Map(); #events = koffi.alloc(EVENT, ROOM)

  constructor(settings) {
    const [json, out] = [JSON.stringify(settings), [null]]
    check(engineOpen(json, Buffer.byteLength(json), null, null, out))
    check(queueOpen(this.#handle = out[0], 1024, out))
    this.#queue = out[0]
  }

  /** The texts of an answer. The request starts with the call, and is cancelled when the loop over them is left. */
  generate(request) {
    const [json, tag, id, stream] = [JSON.stringify(request), ++this.#tag, [0], { events: [], wake() {} }]
    check(submit(this.#queue, json, Buffer.byteLength(json), null, 0, tag, id, null))
    this.#streams.set(tag, stream)
    this.#reading ??= this.#read()
    return this.#texts(stream, tag, id[0])
  }

  async * #texts(stream, tag, id) {
    try {
      for (let event; !event?.isLast;) {
        while (!stream.events.length) await new Promise((resolve) => { stream.wake = resolve })
        event = stream.events.shift()
        if (event.error) throw new Error(event.error.message)
        yield event.text
      }
    } finally {
      if (this.#streams.delete(tag)) check(cancel(this.#queue, id))
    }
  }

  /** Waits for the events of all requests, as long as there are any. */
  async #read() {
    try {
      for (const [events, n] = [this.#events, [0]]; this.#streams.size;) {
        check(await promisify(queueWait.async)(this.#queue, 1000, events, SIZE, ROOM, n))
        const received = n[0] ? koffi.decode(events, koffi.array(EVENT, n[0])) : [] // koffi reads no empty array
        for (const { tag, kind, flags, ...event } of received) {
          const [stream, isLast] = [this.#streams.get(Number(tag)), (flags & IS_LAST) !== 0]
          const error = kind === ERROR && JSON.parse(koffi.decode.string(event.json, event.json_len)).error
          stream?.events.push({ text: koffi.decode.string(event.text, event.text_len), isLast, error })
          stream?.wake()
          if (isLast) this.#streams.delete(Number(tag))
        }
        check(queueRelease(this.#queue, events, SIZE, n[0]))
      }
    } catch (error) {
      for (const stream of this.#streams.values()) stream.wake(stream.events.push({ error }))
      this.#streams.clear()
    }
    this.#reading = undefined
  }

  async close() {
    check(queueClose(this.#queue)) // a wait in progress ends with an error, and so do all answers that have not ended
    await this.#reading
    check(engineClose(this.#handle))
  }
}

const [model, ...questions] = process.argv.slice(2)
const engine = new Engine({ model, download: true, drafters: ['ngram'] })
const answers = questions.map((content) => engine.generate({ messages: [{ role: 'user', content }], max_tokens: 128 }))
for (const [i, answer] of answers.entries()) {
  process.stdout.write(`\n> ${questions[i]}\n`)
  for await (const text of answer) process.stdout.write(text)
}
await engine.close()
