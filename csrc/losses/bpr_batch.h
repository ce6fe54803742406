// A batch of BPR triples, as every device sees it. No torch here.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace smore {

// gamma: the loss is -log(gamma + sigmoid(margin)); 0: without overflow. apart: squares of users, positives and
// negatives are three results with gradients of their own, [3]; otherwise half their sum is one.
struct BprRule {
  double gamma = 0;
  bool apart = false;
  SMORE_HOST_DEVICE int squares() const { return apart ? 3 : 1; }
};

// The loss of a margin and its slope for gamma > 0.
SMORE_HOST_DEVICE inline double bpr_gamma_loss(double margin, double gamma) {
  return -log(gamma + 1 / (1 + exp(-margin)));
}
SMORE_HOST_DEVICE inline double bpr_gamma_slope(double margin, double gamma) {
  const double e = exp(-fabs(margin)), least = e / (1 + e), most = 1 / (1 + e);  // sigmoids of -|margin| and |margin|
  const double sigmoid = margin < 0 ? least : most;
  return -(sigmoid / (gamma + sigmoid)) * (margin < 0 ? most : least);
}

template <typename T>
struct BprBatch {
  const T* user_rows;        // [n_users, d]
  const T* item_rows;        // [n_items, d]
  const int64_t* users;      // [size], checked by the caller
  const int64_t* positives;  // [size]
  const int64_t* negatives;  // [size]
  int64_t size, d;
};

}  // namespace smore
