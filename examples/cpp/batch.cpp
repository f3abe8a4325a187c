// Continues many prompts at once, one prompt a line of standard input, and prints each output when it is complete.
//
//   c++ -std=c++17 batch.cpp $(pkg-config --cflags --libs galley) -o batch
//   ./batch smollm2-135m-instruct < prompts.txt
//
// All prompts run in one batch, and each output is the same as if its prompt ran alone.
#include <galley.h>

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

static void check(galley_error *error) {
  if (!error) return;
  std::string message = galley_error_message(error);
  galley_error_free(error);
  throw std::runtime_error(message);
}

/// A string as JSON.
static std::string quoted(const std::string &text) {
  std::string json = "\"";
  for (unsigned char byte : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
    if (byte >= 0x20 && byte != '"' && byte != '\\') json += static_cast<char>(byte);
    else json += escaped;
  }
  return json + '"';
}

/// An engine that closes itself.
class Engine {
  struct Close { void operator()(galley_engine *e) const { galley_error_free(galley_engine_close(e)); } };
  std::unique_ptr<galley_engine, Close> handle;

 public:
  explicit Engine(const std::string &settings) {
    galley_engine *raw = nullptr;
    check(galley_engine_open(settings.data(), settings.size(), nullptr, nullptr, &raw));
    handle.reset(raw);
  }
  galley_engine *get() const { return handle.get(); }
};

/// A queue that closes itself, and the events of one wait.
class Queue {
  struct Close { void operator()(galley_queue *q) const { galley_error_free(galley_queue_close(q)); } };
  std::unique_ptr<galley_queue, Close> handle;

 public:
  Queue(const Engine &engine, size_t capacity) {
    galley_queue *raw = nullptr;
    check(galley_queue_open(engine.get(), capacity, &raw));
    handle.reset(raw);
  }
  void submit_many(const std::string &json, const std::vector<uint64_t> &tags) {
    check(galley_submit_many(handle.get(), json.data(), json.size(), tags.data(), tags.size(), nullptr, nullptr));
  }
  /// Waits for events, and calls `on_event` for each of them.
  template <typename OnEvent> void wait(OnEvent on_event) {
    galley_event events[256];
    size_t n = 0;
    check(galley_queue_wait(handle.get(), -1, events, sizeof *events, 256, &n));
    for (size_t i = 0; i < n; i++) on_event(events[i]);
    check(galley_queue_release(handle.get(), events, sizeof *events, n));
  }
};

int main(int argc, char **argv) try {
  if (argc < 2) return std::cerr << "usage: batch MODEL < PROMPTS\n", 2;
  Engine engine("{\"download\": true, \"model\": " + quoted(argv[1]) + "}");
  Queue queue(engine, 4096);
  std::string json, prompt;
  std::vector<uint64_t> tags;
  while (std::getline(std::cin, prompt)) {
    json += tags.empty() ? "[" : ", ";
    json += "{\"max_tokens\": 64, \"temperature\": 0, \"prompt\": " + quoted(prompt) + "}";
    tags.push_back(tags.size());
  }
  if (!tags.empty()) queue.submit_many(json + "]", tags);
  std::vector<std::string> outputs(tags.size());
  for (size_t n_open = tags.size(); n_open > 0;) {
    queue.wait([&](const galley_event &event) {
      outputs[event.tag].append(event.text, event.text_len);
      if (event.kind == GALLEY_ERROR) std::cerr << event.json << '\n';
      if (!(event.flags & GALLEY_IS_LAST)) return;
      std::cout << event.tag << '\t' << quoted(outputs[event.tag]) << '\n';
      n_open--;
    });
  }
} catch (const std::exception &error) {
  return std::cerr << error.what() << '\n', 1;
}
