/* The part of hostile.c that calls functions of suffix indexes: all of them, mostly with wrong arguments. */
static void call_suffixes(self_t *s, gd_queue queue, uint64_t id, size_t size) {
  uint32_t tokens[MANY];
  float frequencies[MANY];
  double zero = (double)(size - size), odd[] = {0, -1, 0.5, 1, 1e300, 0.0 / zero, 1.0 / zero};
  gd_matcher matcher;
  gd_match match = {.struct_size = size};
  gd_matcher_args args = {size, (uint32_t)next_random(s), (uint32_t)next_random(s), odd[next_random(s) % 7],
                          odd[next_random(s) % 7], (uint32_t)next_random(s) % 3, 0};
  gd_query query = {size, {id}, {id}, UINT32_MAX, MANY, tokens, frequencies};
  s->suffix->matcher(s->host, &args, &matcher);
  args.struct_size = sizeof args;
  s->suffix->matcher(s->host, &args, &matcher);
  s->suffix->matcher(s->host, NULL, &matcher);
  s->suffix->matcher(NULL, &args, NULL);
  s->suffix->propose(s->host, queue, (gd_matcher){id});
  s->suffix->propose(s->host, (gd_queue){id}, s->matcher);
  s->suffix->query(s->host, &query, &match);
  s->suffix->query(s->host, NULL, NULL);
  query = (gd_query){sizeof query, queue, s->matcher, (uint32_t)next_random(s) % 3, MANY, tokens, NULL};
  s->suffix->query(s->host, &query, &match);
  query.frequencies = frequencies;
  s->suffix->query(s->host, &query, NULL);
  match.struct_size = sizeof match;
  s->suffix->query(s->host, &query, &match);
}
