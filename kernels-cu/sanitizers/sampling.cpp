// Cases of launchers.cpp: sampling, verification and prompt lookup.
#include "cases.h"

// One row for each path: greedy and with noise, every filter, edits, and alternatives, also more than there are tokens.
void sample() {
  const int n_vocab = 3001, n_rows = 8, n_top = 5;
  Values<float> logits((size_t)n_rows * n_vocab), edited(2 * n_vocab);
  fill(logits);
  float *const flat = logits.at + 6 * n_vocab, *const alone = logits.at + 7 * n_vocab;
  for (int i = 0; i < n_vocab; i++) flat[i] = 1.0f, alone[i] = i == 2000 ? 0.0f : -INFINITY;
  Values<gk_sample_row> rows(n_rows);
  Values<gk_edit> edits(3);
  edits.at[0].token = 5, edits.at[0].flags = GK_SEEN, edits.at[0].n_in_output = 2;
  edits.at[1].token = n_vocab - 1, edits.at[1].flags = GK_BANNED;
  edits.at[2].token = 7, edits.at[2].bias = 3.0f;
  for (int i = 0; i < n_rows; i++) {
    gk_sample_row &row = rows.at[i];
    row.seed = 42 + i, row.logits_row = i, row.position = 10, row.temperature = 0.8f, row.top_p = 1.0f;
    row.repetition_penalty = 1.1f, row.frequency_penalty = 0.1f, row.presence_penalty = 0.2f, row.n_top = -1;
  }
  rows.at[0].temperature = 0, rows.at[0].n_top = 0;
  rows.at[1].n_top = n_top;
  rows.at[2].top_k = 40;
  rows.at[3].top_p = 0.9f;
  rows.at[4].min_p = 0.05f, rows.at[4].n_edits = 2;
  rows.at[5].top_k = 700, rows.at[5].top_p = 0.5f;
  rows.at[5].first_edit = 2, rows.at[5].n_edits = 1, rows.at[5].edited = 1;
  rows.at[6].top_k = 2500;  // equal logits: the radix select needs all digits of the keys
  rows.at[7].n_top = n_top, rows.at[7].top = n_top;
  Values<gk_sampled> sampled(n_rows), top(2 * n_top);
  gk_sample call = {};
  call.logits = logits.at, call.rows = rows.at, call.edits = edits.at, call.edited = edited.at;
  call.sampled = sampled.at, call.top = top.at;
  call.logits_stride = n_vocab, call.n_rows = n_rows, call.n_vocab = n_vocab;
  RUN(sample, call);
  digest(sampled), digest(top);
  for (int i = 0; i < n_rows; i++) expect(sampled.at[i].token < (uint32_t)n_vocab, "sample: a token that there is not");
  expect(sampled.at[7].token == 2000 && top.at[n_top + 1].token == GK_NO_TOKEN, "sample: not the only token");
}

void verify() {
  const int n_seqs = 5, most = 70;
  Values<uint32_t> drafted(n_seqs * most);
  Values<gk_sampled> sampled(n_seqs * (most + 1));
  Values<gk_verify_seq> seqs(n_seqs);
  Values<gk_verified> out(n_seqs);
  const int lengths[n_seqs] = {0, 1, 32, 33, most};
  for (int i = 0; i < n_seqs; i++) seqs.at[i] = {i * (most + 1), i * most, lengths[i]};
  sampled.at[2 * (most + 1) + 31].token = 1;
  gk_verify call = {};
  call.sampled = sampled.at, call.drafted = drafted.at, call.seqs = seqs.at, call.out = out.at, call.n_seqs = n_seqs;
  RUN(verify, call);
  digest(out);
  const int accepted[n_seqs] = {0, 1, 31, 33, most};
  for (int i = 0; i < n_seqs; i++) expect(out.at[i].n_accepted == accepted[i], "verify: another prefix");
}

void history() {
  const int n_seqs = 3, n_tokens = 300, stride = 4;
  Values<uint32_t> tokens(n_tokens), found(n_seqs * stride);
  for (int i = 0; i < n_tokens; i++) tokens.at[i] = (uint32_t)(i % 7);
  Values<gk_history_seq> seqs(n_seqs);
  Values<int32_t> counts(n_seqs);
  seqs.at[0] = {0, n_tokens, 1, 400, 8};
  seqs.at[1] = {n_tokens - 1, 1, 1, 3, 2};
  gk_history call = {};
  call.tokens = tokens.at, call.seqs = seqs.at, call.found = found.at, call.counts = counts.at;
  call.n_seqs = n_seqs, call.found_stride = stride;
  RUN(history, call);
  digest(found), digest(counts);
  expect(counts.at[0] == stride && counts.at[1] == 0 && counts.at[2] == 0, "history: another number of tokens");
}
