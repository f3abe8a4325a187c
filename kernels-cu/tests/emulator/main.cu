// Runs a case by its name, or all cases that must give right numbers; lists the cases that must die.
#include "cases.h"

int main(int n_words, char **words) {
  const char *wanted = n_words > 1 ? words[1] : "all";
  bool found = false;
  for (Case *one = Case::first(); one; one = one->next) {
    if (!strcmp(wanted, "list")) {
      if (one->must_die) puts(one->name);
      found = true;
    } else if (strcmp(wanted, "all") ? !strcmp(wanted, one->name) : !one->must_die) {
      one->run();
      found = true;
    }
  }
  if (!found) fprintf(stderr, "no case %s\n", wanted);
  return found ? 0 : 2;
}
