// Calls the launchers of the table with small shapes that reach all their paths, for the sanitizers and for comparisons
// of schedules. The program checks that results are finite, and prints a digest; other tests check the results
// themselves. A new launcher needs a case under its name.
#include "cases.h"

namespace {

const char *expected;
bool was_called;
uint64_t sum;

void run(const char *name) {
  const struct {
    const char *name;
    void (*run)();
  } cases[] = {{"embed", embed},
               {"rms_norm", rms_norm},
               {"angles", angles},
               {"rope_store", rope_store},
               {"copy_blocks", copy_blocks},
               {"linear", linear},
               {"attention", attention},
               {"observe", observe},
               {"sample", sample},
               {"verify", verify},
               {"history", history}};
  expected = name, was_called = false, sum = 0xcbf29ce484222325u;
  for (const auto &one : cases) {
    if (!strcmp(name, one.name)) one.run();
  }
  if (!was_called) {
    fprintf(stderr, "%s has no case that calls it\n", name);
    exit(2);
  }
  printf("%s %016llx\n", name, (unsigned long long)sum);
}

}  // namespace

void called(const char *launcher, int32_t error) {
  was_called |= !strcmp(launcher, expected);
  if (error == 0) return;
  fprintf(stderr, "%s: %s\n", launcher, galley_emulated_kernels()->error_name(error));
  exit(1);
}

void digest_bytes(const unsigned char *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
}

// Runs the cases of the launchers named in the arguments.
int main(int n_words, char **words) {
  for (int i = 1; i < n_words; i++) run(words[i]);
}
