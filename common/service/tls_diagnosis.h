// Why no connection comes about, in words. gRPC says "certificate verify failed" or "Socket closed" for all reasons.
#ifndef SALAMANDER_COMMON_SERVICE_TLS_DIAGNOSIS_H_
#define SALAMANDER_COMMON_SERVICE_TLS_DIAGNOSIS_H_

#include <string>

#include "common/service/security.h"

namespace salamander::service {

// Shakes hands with the server at `address` once more as a channel with `files` does, and looks at what is wrong:
//   "its certificate has expired"
//   "its certificate is for elsewhere.example, not for 127.0.0.1 (--tls_server_name)"
//   "it takes no client without a certificate (--tls_cert, --tls_key)"
// Empty if it finds nothing, which may be since the server is not there at all. Blocks, for at most a few seconds.
std::string ExplainTlsFailure(const std::string& address, const TlsFiles& files);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_TLS_DIAGNOSIS_H_
