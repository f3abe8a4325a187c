/* Chats with a model in the terminal; the answers stream.
 *
 *   cc chat.c $(pkg-config --cflags --libs galley) -o chat
 *   ./chat smollm2-135m-instruct ngram
 *
 * The first argument is a directory, a GGUF file, a model id of the hub or a known name. The second argument is a drafter,
 * which makes answers faster and changes none; it may be left out. The chat ends with standard input. */
#include <galley.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text that grows. */
typedef struct { char *ptr; size_t len, room; } text;

static void add(text *t, const char *ptr, size_t len) {
  if (t->len + len + 1 > t->room) {
    t->room = 2 * (t->len + len + 1);
    t->ptr = realloc(t->ptr, t->room);
    if (!t->ptr) abort();
  }
  memcpy(t->ptr + t->len, ptr, len);
  t->len += len;
  t->ptr[t->len] = 0;
}

static void add_json(text *t, const char *json) { add(t, json, strlen(json)); }

/* Adds a string of JSON. */
static void add_string(text *t, const char *ptr, size_t len) {
  add_json(t, "\"");
  for (size_t i = 0; i < len; i++) {
    char escaped[8];
    unsigned char byte = (unsigned char)ptr[i];
    if (byte >= 0x20 && byte != '"' && byte != '\\') add(t, ptr + i, 1);
    else snprintf(escaped, sizeof escaped, "\\u%04x", byte), add_json(t, escaped);
  }
  add_json(t, "\"");
}

static void check(galley_error *error) {
  if (!error) return;
  fprintf(stderr, "%s\n", galley_error_message(error));
  galley_error_free(error);
  exit(1);
}

static void show(void *user, const char *json, size_t len) {
  (void)user;
  fprintf(stderr, "\r%.*s", (int)len, json);
}

/* Prints the answer to the request as it comes, and adds it to `answer`. */
static void stream(galley_queue *queue, text *answer) {
  for (int is_over = 0; !is_over;) {
    galley_event events[32];
    size_t n;
    check(galley_queue_wait(queue, -1, events, sizeof *events, 32, &n));
    for (size_t i = 0; i < n; i++) {
      if (events[i].kind == GALLEY_ERROR) fprintf(stderr, "%s", events[i].json);
      printf("%s", events[i].text);
      add(answer, events[i].text, events[i].text_len);
      is_over |= (events[i].flags & GALLEY_IS_LAST) != 0;
    }
    fflush(stdout);
    check(galley_queue_release(queue, events, sizeof *events, n));
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "usage: chat MODEL [DRAFTER]\n"), 2;
  text settings = {0}, messages = {0};
  add_json(&settings, "{\"download\": true, \"model\": "), add_string(&settings, argv[1], strlen(argv[1]));
  add_json(&settings, ", \"drafters\": [");
  if (argc > 2) add_string(&settings, argv[2], strlen(argv[2]));
  add_json(&settings, "]}");
  galley_engine *engine;
  galley_queue *queue;
  check(galley_engine_open(settings.ptr, settings.len, show, NULL, &engine));
  check(galley_queue_open(engine, 256, &queue));
  char line[4096];
  while (fprintf(stderr, "\n> "), fgets(line, sizeof line, stdin)) {
    text request = {0}, answer = {0};
    add_json(&messages, messages.len ? ", {\"role\": \"user\", \"content\": " : "{\"role\": \"user\", \"content\": ");
    add_string(&messages, line, strcspn(line, "\n")), add_json(&messages, "}");
    add_json(&request, "{\"temperature\": 0.7, \"messages\": [");
    add(&request, messages.ptr, messages.len), add_json(&request, "]}");
    check(galley_submit(queue, request.ptr, request.len, NULL, 0, 0, NULL, NULL));
    stream(queue, &answer);
    add_json(&messages, ", {\"role\": \"assistant\", \"content\": ");
    add_string(&messages, answer.ptr ? answer.ptr : "", answer.len), add_json(&messages, "}");
    free(request.ptr), free(answer.ptr);
  }
  check(galley_queue_close(queue));
  check(galley_engine_close(engine));
  free(settings.ptr), free(messages.ptr);
}
