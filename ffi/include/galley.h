/* galley.h - Galley inside another program.
 *
 * Generated from ffi/src by `cargo xtask bindings`: change the source instead.
 *
 * An engine runs one model. A queue delivers the events of any number of requests: their tokens as they come, and their
 * ends. Settings of an engine, requests and the ends of sequences are JSON (docs/requests.md lists the keys). Events are
 * flat structs, which are read in place.
 *
 *   galley_engine *engine;
 *   galley_queue *queue;
 *   galley_event events[64];
 *   size_t n;
 *   galley_engine_open(settings, strlen(settings), NULL, NULL, &engine);
 *   galley_queue_open(engine, 1024, &queue);
 *   galley_submit(queue, request, strlen(request), NULL, 0, tag, NULL, NULL);
 *   galley_queue_wait(queue, -1, events, sizeof *events, 64, &n);   ... until an event has GALLEY_IS_LAST
 *   galley_queue_release(queue, events, sizeof *events, n);
 *
 * ERRORS. A function that can fail returns an error, or NULL for success. The caller frees it with galley_error_free.
 * A function that fails writes NULL, 0 or an empty string to its results. A panic inside is the error GALLEY_BUG.
 *
 * HANDLES are numbers that the library checks at every call, not addresses. A closed handle gives GALLEY_CLOSED; a
 * handle that the library never gave out, and NULL, give GALLEY_INVALID_HANDLE. Handles may be closed in any order: an
 * engine lives until it and all its queues are closed, and no other call on them is in progress.
 *
 * THREADS. Every function may be called from any thread, at the same time as any other. These wait: galley_engine_open,
 * galley_engine_close, galley_engine_drain, galley_queue_wait, galley_queue_close. The library calls the caller's code
 * in two places: progress, inside galley_engine_open and on its thread; and the log sink, on any thread. Neither may
 * throw or longjmp.
 *
 * MEMORY. The library owns all memory that it gives out until the function named with it frees it. Arguments are read
 * during the call, and are the caller's afterwards. A pointer to bytes, ids or tags may be NULL where their number is 0.
 *
 * TEXT is UTF-8, and consists of whole characters. A length does not count the NUL that follows every text.
 *
 * PROCESSES. Nothing runs at exit, and no signal is touched. A child that was forked after its parent had opened an
 * engine gets GALLEY_FORKED from every function that returns an error, galley_engine_open, galley_features and
 * galley_set_log too; freeing is harmless there. So fork before the parent opens its first engine, or start a new
 * program. An open that failed does not count.
 *
 * GROWTH. Until version 1.0 the interface may change with every minor version: see galley_abi_version, and the number in
 * the library's name. From then on, functions, codes, JSON keys and fields at the end of galley_event are only added. */

#ifndef GALLEY_H
#define GALLEY_H

#include <stddef.h>
#include <stdint.h>

/**
 * The interface that this header describes: see galley_abi_version.
 */
#define GALLEY_ABI_VERSION 0

/**
 * Success: the code of no error.
 */
#define GALLEY_OK 0

/**
 * An argument is NULL, out of its range or not UTF-8.
 */
#define GALLEY_INVALID_ARGUMENT 1

/**
 * The handle is NULL, of another kind, or was never given out.
 */
#define GALLEY_INVALID_HANDLE 2

/**
 * The handle has been closed. A function that waits returns it when another thread closes its handle.
 */
#define GALLEY_CLOSED 3

/**
 * This process was forked after its parent had opened an engine: fork first, or start a new program.
 */
#define GALLEY_FORKED 4

/**
 * A request is wrong: galley_error_field names the key.
 */
#define GALLEY_INVALID_REQUEST 5

/**
 * A setting of an engine is wrong: galley_error_field names the key.
 */
#define GALLEY_INVALID_SETTING 6

/**
 * The model is not on this machine, or could not be fetched.
 */
#define GALLEY_MODEL_NOT_FOUND 7

/**
 * The model cannot be loaded: its files or the memory of this machine do not allow it.
 */
#define GALLEY_LOAD_FAILED 8

/**
 * Too many requests wait: submit again when some have ended.
 */
#define GALLEY_BUSY 9

/**
 * The engine accepts no requests any more.
 */
#define GALLEY_STOPPED 10

/**
 * The operation began and could not be finished; or the system gave no memory, thread or file descriptor.
 */
#define GALLEY_FAILED 11

/**
 * This build, system or model cannot do it.
 */
#define GALLEY_UNSUPPORTED 12

/**
 * A fault of Galley. The engine may be used further; please report the message.
 */
#define GALLEY_BUG 13

/**
 * galley_event.kind: a sequence has a new token.
 */
#define GALLEY_TOKEN 1

/**
 * galley_event.kind: a sequence has ended. json has the object of outputs[i] in an answer, without its tokens:
 * {"index", "finish_reason", "stop_reason", "usage"}.
 */
#define GALLEY_FINISHED 2

/**
 * galley_event.kind: the request cannot continue. json has {"error": {"code", "message"}}.
 */
#define GALLEY_ERROR 3

/**
 * galley_event.flags: logprob has a value.
 */
#define GALLEY_HAS_LOGPROB 1

/**
 * galley_event.flags: no event of this request follows.
 */
#define GALLEY_IS_LAST 2

/**
 * Flag of galley_tokenize: adds the begin and end tokens that the model expects, as for a prompt of text. A rendered
 * chat template has them already.
 */
#define GALLEY_ADD_SPECIAL 1

/**
 * Flag of galley_tokenize: a special token that is spelt out in the text is text.
 */
#define GALLEY_PLAIN_TEXT 2

/**
 * Flag of galley_detokenize: leaves out special tokens, as the text of an answer does.
 */
#define GALLEY_SKIP_SPECIAL 4

/**
 * Level of the log: a failure.
 */
#define GALLEY_LOG_ERROR 1

/**
 * Level of the log: something that is ignored, or done in another way than asked.
 */
#define GALLEY_LOG_WARN 2

/**
 * Level of the log: facts for people.
 */
#define GALLEY_LOG_INFO 3

/**
 * Level of the log: facts for authors of drafters.
 */
#define GALLEY_LOG_DEBUG 4

/**
 * Level of the log: everything.
 */
#define GALLEY_LOG_TRACE 5

/**
 * A running model.
 */
typedef struct galley_engine galley_engine;

/**
 * The reason why a function failed.
 */
typedef struct galley_error galley_error;

/**
 * A bounded queue of events, and the requests that they belong to.
 */
typedef struct galley_queue galley_queue;

/**
 * A text that the library owns until galley_string_free. Copies of the struct are the same text.
 */
typedef struct {
  /**
   * UTF-8; a NUL follows. Never NULL after success.
   */
  const char *ptr;
  /**
   * In bytes, without the NUL.
   */
  size_t len;
  /**
   * The library's number of the text. 0: no text.
   */
  uint64_t id;
} galley_string;

/**
 * A log sink. level is one of GALLEY_LOG_ERROR to GALLEY_LOG_TRACE; message is a line, and lives during the call.
 */
typedef void (*galley_log_fn)(void *user, int32_t level, const char *message, size_t message_len);

/**
 * Token ids that the library owns until galley_tokens_free. Copies of the struct are the same ids.
 */
typedef struct {
  /**
   * The ids. Not to be read where len is 0.
   */
  const uint32_t *ptr;
  /**
   * Number of ids.
   */
  size_t len;
  /**
   * The library's number of the list. 0: no list.
   */
  uint64_t id;
} galley_tokens;

/**
 * Hears of the opening of an engine. json lives during the call:
 * {"stage": "download", "file": "model.safetensors", "done_bytes": 1024, "total_bytes": 2048 or null} or
 * {"stage": "load", "done_layers": 3, "total_layers": 31}.
 */
typedef void (*galley_progress_fn)(void *user, const char *json, size_t json_len);

/**
 * A token and its log-probability under the model's own logits.
 */
typedef struct {
  /**
   * The token.
   */
  uint32_t token;
  /**
   * Its log-probability.
   */
  float logprob;
} galley_logprob;

/**
 * One event of a request. Pointers live until galley_queue_release.
 */
typedef struct {
  /**
   * Bytes that the library has written, of the event_size that the caller gave.
   */
  uint32_t size;
  /**
   * GALLEY_TOKEN, GALLEY_FINISHED or GALLEY_ERROR. Ignore other kinds.
   */
  uint32_t kind;
  /**
   * The request: the number that galley_submit gave.
   */
  uint64_t id;
  /**
   * The request: the caller's own number.
   */
  uint64_t tag;
  /**
   * GALLEY_HAS_LOGPROB and GALLEY_IS_LAST. Ignore other bits.
   */
  uint32_t flags;
  /**
   * The sequence, among the n of the request. 0 in GALLEY_ERROR, which ends all of them.
   */
  uint32_t index;
  /**
   * The token.
   */
  uint32_t token;
  /**
   * The token's log-probability under the model's own logits, where GALLEY_HAS_LOGPROB is set; otherwise 0.
   */
  float logprob;
  /**
   * The drafter of the token, as a place in "drafters" of galley_engine_info. -1: no drafter, the model
   * itself.
   */
  int32_t drafter;
  /**
   * The place of the token in its draft, from 0.
   */
  uint32_t position;
  /**
   * The text that became final with this token. May be empty: a character may consist of several tokens, and text
   * that may begin a stop string is held back. The texts of all events of a sequence are its output.
   */
  const char *text;
  /**
   * In bytes, without the NUL.
   */
  size_t text_len;
  /**
   * The most likely tokens, most likely first, if the request asks for them.
   */
  const galley_logprob *top;
  /**
   * Their number.
   */
  size_t n_top;
  /**
   * The JSON object of GALLEY_FINISHED and GALLEY_ERROR; empty otherwise.
   */
  const char *json;
  /**
   * In bytes, without the NUL.
   */
  size_t json_len;
  /**
   * The library's number of the event, for galley_queue_release.
   */
  uint64_t ticket;
} galley_event;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the interface that the library has. A program that was compiled with another GALLEY_ABI_VERSION
 * must not call any other function.
 */
uint32_t galley_abi_version(void);

/**
 * The version of Galley, such as "0.1.0". Lives as long as the library.
 */
const char *galley_version(void);

/**
 * The abilities of this build on this machine, as JSON: {"version", "abi_version", "backends", "instruction_sets",
 * "drafters": [{"name", "version", "description", "path"}], "drafter_folders"}. A drafter that cannot be loaded has
 * {"path", "error"}.
 *
 * out receives a text: free it with galley_string_free.
 */
galley_error *galley_features(galley_string *out);

/**
 * Sends log lines up to level to sink, in place of an earlier sink; NULL ends logging. There is no log without a
 * sink.
 *
 * sink is called on any thread, engine threads too, several at a time; user is passed on. When the function returns,
 * no call of an earlier sink runs any more. A sink must return soon, must call no function of this library, and must
 * neither throw nor longjmp.
 */
galley_error *galley_set_log(galley_log_fn sink, void *user, int32_t level);

/**
 * One of GALLEY_OK to GALLEY_BUG. GALLEY_OK for NULL.
 */
int32_t galley_error_code(const galley_error *error);

/**
 * A sentence with the way out. It begins with the field, if there is one: "temperature: -1 is not between 0 and 100".
 * Empty for NULL. Lives until galley_error_free.
 */
const char *galley_error_message(const galley_error *error);

/**
 * The key of the JSON that is wrong, such as "temperature"; or NULL. Lives until galley_error_free.
 */
const char *galley_error_field(const galley_error *error);

/**
 * Frees an error. NULL and freed errors are ignored.
 */
void galley_error_free(galley_error *error);

/**
 * Frees a text and clears the struct. NULL, an empty struct and a freed text are ignored.
 */
void galley_string_free(galley_string *string);

/**
 * Frees token ids and clears the struct. NULL, an empty struct and freed ids are ignored.
 */
void galley_tokens_free(galley_tokens *tokens);

/**
 * Opens a model, and waits until it is loaded. json has its settings: {"model": "smollm2-135m-instruct", "download":
 * true, "drafters": ["ngram"], …}.
 *
 * progress may be NULL. It is called on this thread, before the function returns; user is passed on. It must neither
 * throw nor longjmp.
 *
 * Drafters are searched in the folders of "plugin_path", then around this library: ../lib/galley/drafters,
 * galley/drafters and its own folder; then in the folders of the program and the system.
 */
galley_error *galley_engine_open(const char *json,
                                 size_t json_len,
                                 galley_progress_fn progress,
                                 void *user,
                                 galley_engine **out);

/**
 * Closes an engine. The engine ends, and frees its memory, when its last queue has been closed too: the later of
 * these calls waits for it. A call in progress on another thread keeps the engine or queue too, so that a close may
 * return before the memory is freed.
 */
galley_error *galley_engine_close(galley_engine *engine);

/**
 * Refuses new requests from now on, and waits until all accepted requests have ended. Their events must be read
 * meanwhile, by another thread. A negative timeout_ms waits without end; 0 only asks, which takes 100 ms at most.
 *
 * drained (may be NULL) receives 1 if all have ended, and 0 after the timeout.
 */
galley_error *galley_engine_drain(galley_engine *engine, int64_t timeout_ms, int32_t *drained);

/**
 * The facts of an engine as JSON: {"path", "device", "fingerprint", "drafters": ["ngram"], "limits", …}.
 *
 * out receives a text: free it with galley_string_free.
 */
galley_error *galley_engine_info(galley_engine *engine, galley_string *out);

/**
 * The statistics of an engine as of its last step, as JSON.
 *
 * out receives a text: free it with galley_string_free.
 */
galley_error *galley_engine_stats(galley_engine *engine, galley_string *out);

/**
 * The tokens of a text. flags: GALLEY_ADD_SPECIAL, GALLEY_PLAIN_TEXT.
 *
 * out receives token ids: free them with galley_tokens_free.
 */
galley_error *galley_tokenize(galley_engine *engine,
                              const char *text,
                              size_t text_len,
                              uint32_t flags,
                              galley_tokens *out);

/**
 * The text of tokens. Bytes that are not UTF-8 become U+FFFD. Ids without a token add no text. flags:
 * GALLEY_SKIP_SPECIAL.
 *
 * out receives a text: free it with galley_string_free.
 */
galley_error *galley_detokenize(galley_engine *engine,
                                const uint32_t *ids,
                                size_t n_ids,
                                uint32_t flags,
                                galley_string *out);

/**
 * The prompt that the model's chat template makes of {"messages": […]}, with "tools", "chat_template_kwargs",
 * "add_generation_prompt" and "continue_final_message" as in a request.
 *
 * out receives a text: free it with galley_string_free.
 */
galley_error *galley_chat_render(galley_engine *engine, const char *json, size_t json_len, galley_string *out);

/**
 * Opens a queue of an engine. When capacity events are unread (at least 1), the sequences of this queue pause until
 * some are read; no event is lost, and other queues go on.
 */
galley_error *galley_queue_open(galley_engine *engine, size_t capacity, galley_queue **out);

/**
 * Waits for events, and writes up to n_events of them. A negative timeout_ms waits without end, 0 does not wait.
 *
 * events has room for n_events events of event_size bytes, which is sizeof(galley_event) in the caller's header. n
 * receives their number: 0 after the timeout. Each event must be released. Several threads may wait, and each event
 * reaches one of them. Events of a request arrive in order.
 */
galley_error *galley_queue_wait(galley_queue *queue,
                                int64_t timeout_ms,
                                galley_event *events,
                                size_t event_size,
                                size_t n_events,
                                size_t *n);

/**
 * Frees the texts, log-probabilities and JSON of events. Any number of the events of a wait may be released at a
 * time, in any order, also after the queue has been closed. An event that has been released already is
 * GALLEY_INVALID_ARGUMENT, or GALLEY_CLOSED if it was the last one of a closed queue; the remaining events are
 * released nevertheless.
 */
galley_error *galley_queue_release(galley_queue *queue, const galley_event *events, size_t event_size, size_t n_events);

/**
 * A file descriptor that is readable while the queue has unread events, for poll, epoll and event loops. It belongs
 * to the queue: do not read, write or close it, and stop watching it before galley_queue_close. It may be readable
 * when another thread has read the events. GALLEY_UNSUPPORTED where the system has no eventfd.
 *
 * fd receives the descriptor, or -1.
 */
galley_error *galley_queue_fd(galley_queue *queue, int32_t *fd);

/**
 * Closes a queue: cancels its requests and discards its unread events. Threads that wait for its events return
 * GALLEY_CLOSED. Events that were read remain valid until they are released. If its engine has been closed, the engine
 * ends: see galley_engine_close.
 */
galley_error *galley_queue_close(galley_queue *queue);

/**
 * Submits a request. The queue delivers its events. json is an object: {"prompt": "Once upon a time", "max_tokens":
 * 64} or {"messages": [{"role": "user", "content": "Hello"}]}.
 *
 * prompt_ids, if not NULL, are n_prompt_ids token ids: the prompt, which json then must not have.
 *
 * tag is the caller's number, which every event of the request carries. Events may arrive before the function
 * returns.
 *
 * id (may be NULL) receives the number of the request. started (may be NULL) receives everything that a later
 * request needs to resume this one, as JSON: {"id", "seed", "fingerprint", "prompt_token_ids"}, and "resumed_text"
 * where the request resumes another: free it with galley_string_free.
 */
galley_error *galley_submit(galley_queue *queue,
                            const char *json,
                            size_t json_len,
                            const uint32_t *prompt_ids,
                            size_t n_prompt_ids,
                            uint64_t tag,
                            uint64_t *id,
                            galley_string *started);

/**
 * Submits several requests, all or none, which the engine receives before the same step. json is an array of
 * n_requests objects. tags has n_requests tags.
 *
 * ids (may be NULL) receives n_requests numbers, in order. started (may be NULL) receives an array of the objects of
 * galley_submit: free it with galley_string_free.
 */
galley_error *galley_submit_many(galley_queue *queue,
                                 const char *json,
                                 size_t json_len,
                                 const uint64_t *tags,
                                 size_t n_requests,
                                 uint64_t *ids,
                                 galley_string *started);

/**
 * Ends the remaining sequences of a request. GALLEY_FINISHED with the reason "cancelled" follows for each of them. A
 * request that has ended is ignored.
 */
galley_error *galley_cancel(galley_queue *queue, uint64_t id);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GALLEY_H */
