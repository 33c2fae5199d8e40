// Router::Start with a model that is already known, for tests and for embedding.
#ifndef SALAMANDER_ROUTER_START_H_
#define SALAMANDER_ROUTER_START_H_

#include <memory>

#include "absl/status/statusor.h"
#include "router/model_info.h"
#include "router/router.h"

namespace salamander::router {

// `options.model` is not read.
absl::StatusOr<std::unique_ptr<Router>> StartRouter(const RouterOptions& options, ModelInfo model);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_START_H_
