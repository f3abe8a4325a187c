/* A drafter as it was written for version 1.0 of the ABI, with nothing but its header. Frozen with it: today's host
 * runs it. */
#include "galley_drafter_1_0.h"

#include <stdlib.h>

GD_MANIFEST({
  "id": "test.echo-1-0",
  "name": "echo-1-0",
  "version": "1.0.0",
  "description": "Guesses the last token again, or with a window where there is none",
  "needs": ["galley.models/1", "galley.views/1", "galley.layers/1", "galley.chain/1", "galley.tokens/1"]
});

typedef struct {
  gd_drafter drafter;
  const gd_host *host;
  const gd_host_models *models;
  const gd_host_views *views;
  const gd_host_layers *layers;
  const gd_host_chain *chain;
  const gd_host_tokens *tokens;
  gd_view view;
  gd_layers mask;
} echo;

static gd_status fail(echo *self, gd_status status) {
  static const char sentence[] = "the host refused what 1.0 has";
  gd_str message = {sentence, sizeof sentence - 1};
  self->host->log(self->host, GD_LOG_ERROR, message);
  return status;
}

static gd_status echo_activate(gd_drafter *drafter, const gd_limits *limits) {
  echo *self = (echo *)drafter;
  gd_model target = {0};
  gd_model_info info = {.struct_size = sizeof info};
  gd_window_args window = {.struct_size = sizeof window, .n_sinks = 4, .budget_tokens = 64};
  uint8_t on[256] = {0};
  gd_status status;
  if (limits->struct_size < sizeof *limits || limits->max_rows == 0) return fail(self, GD_INVALID);
  status = self->models->describe(self->host, target, &info);
  if (status != GD_OK) return fail(self, status);
  if (info.n_layers == 0 || info.n_layers > sizeof on) return fail(self, GD_UNSUPPORTED);
  on[0] = 1;
  status = self->views->window(self->host, &window, &self->view);
  if (status != GD_OK) return fail(self, status);
  status = self->layers->mask(self->host, target, on, on, info.n_layers, &self->mask);
  return status == GD_OK ? GD_OK : fail(self, status);
}

static gd_status echo_guess(gd_drafter *drafter, const gd_batch *batch) {
  echo *self = (echo *)drafter;
  gd_chain_args chain = {.struct_size = sizeof chain, .queue = batch->queue, .view = self->view, .layers = self->mask};
  gd_row row = {.struct_size = sizeof row};
  gd_status status = self->tokens->row(self->host, batch->queue, 0, &row);
  if (status != GD_OK) return fail(self, status);
  if (row.n_tokens > 0 && row.draft_length > 0) {
    status = self->tokens->push(self->host, batch->queue, 0, row.tokens + row.n_tokens - 1, 1);
    if (status != GD_OK) return fail(self, status);
  }
  status = self->chain->chain(self->host, &chain);
  return status == GD_OK ? GD_OK : fail(self, status);
}

static gd_status echo_cost(gd_drafter *drafter, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  (void)drafter, (void)budget_tokens;
  out->weights_read = 1;
  out->kv_tokens_read = context_tokens < 64 ? (double)context_tokens : 64;
  return GD_OK;
}

static void echo_destroy(gd_drafter *drafter) { free(drafter); }

static gd_status echo_create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  echo *self = calloc(1, sizeof *self);
  (void)options, (void)n_options;
  if (!self) return GD_NO_MEMORY;
  self->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter),
      .destroy = echo_destroy,
      .activate = echo_activate,
      .guess = echo_guess,
      .cost = echo_cost,
  };
  self->host = host;
  self->models = host->extension(host, GD_EXT_MODELS);
  self->views = host->extension(host, GD_EXT_VIEWS);
  self->layers = host->extension(host, GD_EXT_LAYERS);
  self->chain = host->extension(host, GD_EXT_CHAIN);
  self->tokens = host->extension(host, GD_EXT_TOKENS);
  if (!self->models || !self->views || !self->layers || !self->chain || !self->tokens) {
    gd_status status = fail(self, GD_UNSUPPORTED);
    free(self);
    return status;
  }
  *out = &self->drafter;
  return GD_OK;
}

GD_EXPORT const gd_library *galley_drafter_v1(void);
const gd_library *galley_drafter_v1(void) {
  static const gd_library library = {sizeof(gd_library), GD_ABI_MAJOR, GD_ABI_MINOR, gd_manifest, echo_create};
  return &library;
}
