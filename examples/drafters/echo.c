/* echo.c - the smallest drafter in C that computes its guess: the last token, a few times over.
 *
 *   cc -std=c11 -O2 -shared -fPIC -fvisibility=hidden -I../../plugins/abi/include echo.c -o libecho.so
 *   galley run --drafter-plugin ./libecho.so ... */
#include "galley_drafter_sdk.h"

GD_MANIFEST({
  "id": "org.example.echo",
  "name": "echo",
  "version": "0.1.0",
  "description": "Guesses the last token again",
  "needs": ["galley.tokens/1"],
  "options": [{"name": "times", "default": "2", "help": "how often, 1 to 16"}]
});

enum { MAX_TIMES = 16 };

typedef struct {
  gd_drafter drafter; /* first, so that a pointer to it is a pointer to the echo */
  const gd_host *host;
  const gd_host_tokens *tokens;
  uint32_t times;
} echo;

/* The drafter makes no handles and reserves no memory. */
static gd_status echo_activate(gd_drafter *drafter, const gd_limits *limits) {
  (void)drafter, (void)limits;
  return GD_OK;
}

static gd_status echo_guess(gd_drafter *drafter, const gd_batch *batch) {
  echo *self = (echo *)drafter;
  gd_status outcome = GD_NO_GUESS;
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    gd_row row = {.struct_size = sizeof row};
    gd_status status = self->tokens->row(self->host, batch->queue, i, &row);
    if (status != GD_OK) return status;

    uint32_t guess[MAX_TIMES];
    uint32_t n_tokens = self->times < row.draft_length ? self->times : row.draft_length;
    if (row.n_tokens == 0 || n_tokens == 0) continue;
    for (uint32_t k = 0; k < n_tokens; k++) guess[k] = row.tokens[row.n_tokens - 1];

    status = self->tokens->push(self->host, batch->queue, i, guess, n_tokens);
    if (status != GD_OK) return status;
    outcome = GD_OK;
  }
  return outcome;
}

/* A guess reads no weight and no cached key. */
static gd_status echo_cost(gd_drafter *drafter, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  (void)drafter, (void)context_tokens, (void)budget_tokens;
  out->weights_read = 0;
  out->kv_tokens_read = 0;
  return GD_OK;
}

static void echo_destroy(gd_drafter *drafter) { free(drafter); }

static gd_status echo_create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  const gd_host_tokens *tokens = gd_need(host, GD_EXT_TOKENS);
  if (!tokens) return GD_UNSUPPORTED;
  uint32_t times = 0;
  gd_status status = gd_option_u32(host, options, n_options, "times", &times);
  if (status != GD_OK) return status;
  if (times < 1 || times > MAX_TIMES) {
    gd_log_error(host, "option times: 1 to 16 is expected");
    return GD_INVALID;
  }

  echo *self = calloc(1, sizeof *self);
  if (!self) return GD_NO_MEMORY;
  self->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter),
      .destroy = echo_destroy,
      .activate = echo_activate,
      .guess = echo_guess,
      .cost = echo_cost,
  };
  self->host = host;
  self->tokens = tokens;
  self->times = times;
  *out = &self->drafter;
  return GD_OK;
}

GD_DRAFTER_LIBRARY(echo_create)
