#include "tests/testing/certificates.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace salamander::testing {
namespace {

constexpr char kNewKey[] = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

void Run(const std::string& command) {
  ASSERT_EQ(std::system(absl::StrCat("openssl ", command, " 2>/dev/null").c_str()), 0) << "openssl " << command;
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name) {
  Run(absl::StrCat("req -x509 ", kNewKey, " -keyout ", folder_.file("ca.key"), " -out ", ca(),
                   " -days 2 -subj '/CN=", name, "'"));
}

service::TlsFiles TestAuthority::Issue(const std::string& name, const IssueOptions& options) const {
  service::TlsFiles files{.cert = folder_.file(name + ".pem"), .key = folder_.file(name + ".key"), .ca = ca()};
  files.reload_seconds = 1;
  const std::string request = folder_.file(name + ".csr");
  const std::string extensions = folder_.Write(
      name + ".ext", absl::StrCat("subjectAltName=", options.names, "\nextendedKeyUsage=serverAuth,clientAuth\n"));
  Run(absl::StrCat("req ", kNewKey, " -keyout ", files.key, " -out ", request, " -subj '/CN=", name, "'"));
  Run(absl::StrCat("x509 -req -in ", request, " -CA ", ca(), " -CAkey ", folder_.file("ca.key"),
                   " -CAcreateserial -days ", options.expired ? 0 : 2, " -extfile ", extensions, " -out ", files.cert));
  return files;
}

void TestAuthority::Renew(const service::TlsFiles& from, const service::TlsFiles& to) {
  for (const auto& [new_file, old_file] : {std::pair{from.key, to.key}, std::pair{from.cert, to.cert}}) {
    std::filesystem::copy_file(new_file, old_file + ".new");
    std::filesystem::rename(old_file + ".new", old_file);
  }
}

}  // namespace salamander::testing
