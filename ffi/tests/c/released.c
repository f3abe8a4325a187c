/* A negative control: reads the text of an event after its release, which a sanitizer must see. */
#include "hostile.h"

int main(int argc, char **argv) {
  CHECK(argc == 2);
  galley_queue *queue = open_queue(open_engine(argv[1]), 8);
  EXPECT(GALLEY_OK, submit(queue, "{\"prompt\": \"Once upon a time\", \"max_tokens\": 8}", 0));
  galley_event event;
  size_t n = 0;
  do EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, &event, sizeof event, 1, &n));
  while (!event.ticket);
  EXPECT(GALLEY_OK, galley_queue_release(queue, &event, sizeof event, 1));
  printf("%c\n", event.kind == GALLEY_TOKEN ? event.text[0] : event.json[0]);
}
