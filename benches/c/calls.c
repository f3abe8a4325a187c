/* A drafter for measuring host calls: its guess makes one host call many times. */
#include "galley_drafter_sdk.h"

GD_MANIFEST({
  "id": "galley.bench.calls", "name": "calls", "version": "1", "description": "Calls one host function over and over",
  "needs": ["galley.models/1", "galley.views/1", "galley.layers/1", "galley.chain/1", "galley.tokens/1", "galley.replay/1"],
  "options": [
    {"name": "call", "default": "none", "help": "none, or a function of the host"},
    {"name": "times", "default": "1", "help": "calls a guess"},
    {"name": "every", "default": "1", "help": "0: the guess may be recorded; 1: it is asked for every round"}
  ]
});

typedef struct {
  gd_drafter drafter;
  const gd_host *host;
  const gd_host_models *models;
  const gd_host_views *views;
  const gd_host_layers *layers;
  const gd_host_chain *chain;
  const gd_host_tokens *tokens;
  const gd_host_replay *replay;
  gd_view view;
  gd_layers mask;
  uint32_t times, every, n_layers;
  uint8_t flags[256];
  char call[16];
} calls;

static gd_status calls_activate(gd_drafter *drafter, const gd_limits *limits) {
  calls *self = (calls *)drafter;
  gd_model target = {0};
  gd_model_info info = {.struct_size = sizeof info};
  gd_window_args window = {sizeof window, target, 4, 64};
  (void)limits;
  gd_status status = self->models->describe(self->host, target, &info);
  if (status != GD_OK || info.n_layers > sizeof self->flags) return GD_UNSUPPORTED;
  self->n_layers = info.n_layers;
  status = self->views->window(self->host, &window, &self->view);
  if (status != GD_OK) return status;
  return self->layers->mask(self->host, target, self->flags, self->flags, self->n_layers, &self->mask);
}

static gd_status one(calls *self, const gd_batch *batch, uint32_t i) {
  static const uint32_t tokens[] = {1, 2, 3};
  uint32_t row = i % batch->n_rows;
  gd_model target = {0};
  gd_row known = {.struct_size = sizeof known};
  gd_model_info info = {.struct_size = sizeof info};
  gd_replay_score score = {.struct_size = sizeof score};
  gd_chain_args chain = {sizeof chain, batch->queue, target, self->view, self->mask};
  gd_str text = {"a short sentence", 16};
  switch (self->call[0] << 8 | self->call[1]) {
    case 'n' << 8 | 'o': return GD_OK;
    case 'e' << 8 | 'x': return self->host->extension(self->host, GD_EXT_REPLAY) ? GD_OK : GD_INTERNAL;
    case 'l' << 8 | 'o': /* log, lookup */
      if (self->call[2] == 'o') return self->tokens->lookup(self->host, batch->queue, 2, 4);
      return self->host->log(self->host, GD_LOG_DEBUG, text), GD_OK;
    case 'd' << 8 | 'e': return self->models->describe(self->host, target, &info);
    case 'c' << 8 | 'h': /* chain, change */
      if (self->call[3] == 'i') return self->chain->chain(self->host, &chain);
      return self->layers->change(self->host, self->mask, self->flags, self->flags, self->n_layers);
    case 'r' << 8 | 'o': return self->tokens->row(self->host, batch->queue, row, &known);
    case 'p' << 8 | 'u': return self->tokens->push(self->host, batch->queue, row, tokens, 3);
    case 'r' << 8 | 'e': return self->replay->replay(self->host, batch->queue, self->mask, 16);
    case 's' << 8 | 'c': return self->replay->score(self->host, self->mask, &score);
  }
  return GD_INVALID;
}

static gd_status calls_guess(gd_drafter *drafter, const gd_batch *batch) {
  calls *self = (calls *)drafter;
  if (self->every) self->host->rerecord(self->host);
  for (uint32_t i = 0; i < self->times; i++) {
    gd_status status = one(self, batch, i);
    if (status != GD_OK) return status;
  }
  return GD_OK;
}

static void calls_destroy(gd_drafter *drafter) { free(drafter); }

static gd_status calls_create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  calls *self = calloc(1, sizeof *self);
  if (!self) return GD_NO_MEMORY;
  gd_str call = gd_option_text(options, n_options, "call");
  memcpy(self->call, call.ptr, call.len < sizeof self->call - 1 ? call.len : sizeof self->call - 1);
  gd_status status = gd_option_u32(host, options, n_options, "times", &self->times);
  if (status == GD_OK) status = gd_option_u32(host, options, n_options, "every", &self->every);
  if (status != GD_OK) return free(self), status;
  self->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter), .destroy = calls_destroy, .activate = calls_activate, .guess = calls_guess};
  self->host = host;
  self->models = gd_need(host, GD_EXT_MODELS);
  self->views = gd_need(host, GD_EXT_VIEWS);
  self->layers = gd_need(host, GD_EXT_LAYERS);
  self->chain = gd_need(host, GD_EXT_CHAIN);
  self->tokens = gd_need(host, GD_EXT_TOKENS);
  self->replay = gd_need(host, GD_EXT_REPLAY);
  *out = &self->drafter;
  return GD_OK;
}

GD_DRAFTER_LIBRARY(calls_create)
