// An op as C++ code calls and binds it. Its signature is written once, in the header of its contract:
//
//     SMORE_OP(info_nce, std::tuple<at::Tensor, at::Tensor>(const at::Tensor& x, const at::Tensor& y, double
//     temperature));
//
// makes a type info_nce_op. info_nce_op::call(x, y, t) goes through torch's dispatcher, as a call from Python does;
// info_nce_op::bind(m, &kernel), inside TORCH_LIBRARY_IMPL, makes `kernel` the one of a device or dispatch key, and
// does not compile if it has another signature.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <utility>

namespace smore {

template <typename Self, typename Signature>
struct Op;

template <typename Self, typename Result, typename... Args>
struct Op<Self, Result(Args...)> {
  using Kernel = Result (*)(Args...);

  static Result call(Args... args) {
    static const auto handle = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow((std::string("smore_ext::") + Self::name).c_str(), Self::overload)
                                   .template typed<Result(Args...)>();
    return handle.call(std::forward<Args>(args)...);
  }

  static void bind(torch::Library& library, Kernel kernel) {
    const std::string suffix = *Self::overload ? std::string(".") + Self::overload : "";
    library.impl((Self::name + suffix).c_str(), kernel);
  }
};

}  // namespace smore

#define SMORE_OP(id, ...)                              \
  struct id##_op : ::smore::Op<id##_op, __VA_ARGS__> { \
    static constexpr const char* name = #id;           \
    static constexpr const char* overload = "";        \
  }

// The overload `which` of an op: a type id_which_op.
#define SMORE_OVERLOAD(id, which, ...)                                     \
  struct id##_##which##_op : ::smore::Op<id##_##which##_op, __VA_ARGS__> { \
    static constexpr const char* name = #id;                               \
    static constexpr const char* overload = #which;                        \
  }
