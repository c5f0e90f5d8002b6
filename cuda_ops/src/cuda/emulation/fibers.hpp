// Fibers: flows of control in one thread of the system, each with a stack of its own, that hand over to each other by name.
#pragma once

#include <cstddef>

namespace ops::cuda::emulation {

class Fiber {
 public:
  /// Runs entry(), which never returns, at the first `resume`.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// From outside of all fibers: go on in this one, until it calls `leave`.
  void resume();
  /// From within this fiber: go on where it was resumed.
  void leave();
  /// The first thing that entry() calls.
  static void entered();

 private:
  void* stack_;
  void* saved_;                 // its stack pointer, or its context, while others run
  void* sanitizer_ = nullptr;   // what the address sanitizer keeps for a stack that does not run
};

}  // namespace ops::cuda::emulation
