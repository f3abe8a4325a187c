/* galley_drafter_sdk.h - helpers for drafters in C beside the contract: options, extensions, the reason of a failure,
 * the entry point. Everything here is static inline or a macro: there is nothing to link with. */
#ifndef GALLEY_DRAFTER_SDK_H
#define GALLEY_DRAFTER_SDK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "galley_drafter.h"

#ifdef __cplusplus
#define GD_EXTERN_C extern "C"
#else
#define GD_EXTERN_C extern
#endif

/* [any] Logs the reason of the failing status that the caller is about to return. */
static inline void gd_log_error(const gd_host *host, const char *sentence) {
  gd_str message;
  message.ptr = sentence;
  message.len = strlen(sentence);
  host->log(host, GD_LOG_ERROR, message);
}

/* [any] The table of an extension. Where the host lacks it, logs the reason and returns NULL; the caller then returns
 * GD_UNSUPPORTED. */
static inline const void *gd_need(const gd_host *host, const char *id) {
  const void *table = host->extension(host, id);
  if (!table) {
    char sentence[128];
    snprintf(sentence, sizeof sentence, "this host lacks %s", id);
    gd_log_error(host, sentence);
  }
  return table;
}

/* The value of an option. {NULL, 0} where the manifest does not name it. */
static inline gd_str gd_option_text(const gd_option *options, size_t n_options, const char *name) {
  gd_str none = {NULL, 0};
  size_t i, len = strlen(name);
  for (i = 0; i < n_options; i++)
    if (options[i].name.len == len && memcmp(options[i].name.ptr, name, len) == 0) return options[i].value;
  return none;
}

/* An option as a whole number. Where the text is no whole number, logs the reason, leaves *out alone and returns
 * GD_INVALID. */
static inline gd_status gd_option_u32(const gd_host *host, const gd_option *options, size_t n_options,
                                      const char *name, uint32_t *out) {
  gd_str text = gd_option_text(options, n_options, name);
  uint64_t value = 0;
  size_t i;
  for (i = 0; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9' && value <= UINT32_MAX; i++)
    value = value * 10 + (uint64_t)(text.ptr[i] - '0');
  if (text.len == 0 || i < text.len || value > UINT32_MAX) {
    char sentence[256];
    snprintf(sentence, sizeof sentence, "option %s=\"%.*s\": a whole number is expected", name,
             (int)(text.len < 100 ? text.len : 100), text.len ? text.ptr : "");
    gd_log_error(host, sentence);
    return GD_INVALID;
  }
  *out = (uint32_t)value;
  return GD_OK;
}

/* Defines the entry point of a library. GD_MANIFEST must come before it. No semicolon follows the macro. */
#define GD_DRAFTER_LIBRARY(create_fn)                                                        \
  GD_EXTERN_C GD_EXPORT const gd_library *galley_drafter_v1(void);                           \
  const gd_library *galley_drafter_v1(void) {                                                \
    static const gd_library library = {sizeof(gd_library), GD_ABI_MAJOR, GD_ABI_MINOR,       \
                                       gd_manifest, create_fn};                              \
    return &library;                                                                         \
  }

#endif
