// Certificates made when a test runs, by the openssl command.
#ifndef SALAMANDER_TESTS_TESTING_CERTIFICATES_H_
#define SALAMANDER_TESTS_TESTING_CERTIFICATES_H_

#include <string>

#include "common/service/security.h"
#include "tests/testing/temp_folder.h"

namespace salamander::testing {

// "IP:…" and "DNS:…", with commas, as openssl wants them.
inline constexpr char kLoopbackNames[] = "IP:127.0.0.1,DNS:localhost";

struct IssueOptions {
  std::string names = kLoopbackNames;
  bool expired = false;
};

class TestAuthority {
 public:
  // Fails the test if there is no openssl.
  explicit TestAuthority(const std::string& name);

  // Its own certificate.
  std::string ca() const { return folder_.file("ca.pem"); }
  // A certificate and key for servers and clients, in files NAME.pem and NAME.key, each put there in one step. The
  // paths, with this authority's as the one to trust.
  service::TlsFiles Issue(const std::string& name, const IssueOptions& options = {}) const;
  // Puts the certificate and key of `from` where those of `to` are, as a renewal does.
  static void Renew(const service::TlsFiles& from, const service::TlsFiles& to);

 private:
  TempFolder folder_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_CERTIFICATES_H_
