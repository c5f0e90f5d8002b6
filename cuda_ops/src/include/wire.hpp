// How a plain C++ function is offered to Python: pointers travel as addresses (the Python side has checked dtype, shape, device and
// contiguity), everything else as itself, and the interpreter's lock is released while it runs.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>

namespace ops {

template <class T>
struct Wire {
  using Type = T;
  static T unpack(T value) { return value; }
};

template <class T>
struct Wire<T*> {
  using Type = std::uintptr_t;
  static T* unpack(std::uintptr_t address) { return reinterpret_cast<T*>(address); }
};

template <class Result, class... Args>
void offer(nanobind::module_& module, const char* name, Result (*function)(Args...)) {
  module.def(name, [function](typename Wire<Args>::Type... args) -> Result {
    nanobind::gil_scoped_release released;
    return function(Wire<Args>::unpack(args)...);
  });
}

}  // namespace ops
