// Locks and fork(): a child process has one thread, and must not inherit a mutex locked by one that it does not have.
#pragma once

#include <pthread.h>

#include <mutex>

namespace smore {

// From now on the mutex that `get` returns is held across every fork, and free in parent and child after it. Call it
// once. What the mutex guards is then whole in the child, so nothing slow may be done under it.
template <std::mutex& (*get)()>
void free_in_children() {
  pthread_atfork([] { get().lock(); }, [] { get().unlock(); }, [] { get().unlock(); });
}

}  // namespace smore
