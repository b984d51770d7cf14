#include "common/base/cpu_quota.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "common/base/process.h"

namespace expertmesh {
namespace {

constexpr char kMount2[] = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
constexpr char kMount1[] =
    "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 25 0:28 / /sys/fs/cgroup/cpuset rw shared:10 - cgroup cgroup rw,cpuset\n";

// A tree of files as the kernel shows it.
class CpuQuotaTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cpu_quota_XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~CpuQuotaTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path whole = root_ + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  void Processes(const std::string& mounts, const std::string& groups) const {
    Write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/root rw\n" + mounts);
    Write("/proc/self/cgroup", groups);
  }
  void Quota1(const std::string& group, const std::string& quota) const {
    const std::string folder = "/sys/fs/cgroup/cpu,cpuacct" + group;
    Write(folder + "/cpu.cfs_quota_us", quota + "\n");
    Write(folder + "/cpu.cfs_period_us", "100000\n");
  }
  std::optional<double> Quota() const { return CpuQuota(root_); }

  std::string root_;
};

TEST_F(CpuQuotaTest, NothingIsKnownOfAMachineWithoutGroups) {
  EXPECT_EQ(Quota(), std::nullopt);
  Processes("", "");
  EXPECT_EQ(Quota(), std::nullopt);
  Processes("garbage\n\n - \n1 2 3 - cgroup2\n", "\n::\nx\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CpuQuotaTest, Version2) {
  Processes(kMount2, "0::/pods/one\n");
  EXPECT_EQ(Quota(), std::nullopt);  // The root has no cpu.max.
  Write("/sys/fs/cgroup/pods/one/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
  Write("/sys/fs/cgroup/pods/one/cpu.max", "25000 100000\n");
  EXPECT_EQ(Quota(), 0.25);
  Write("/sys/fs/cgroup/pods/one/cpu.max", "nonsense\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CpuQuotaTest, TheLeastOfNestedGroupsCounts) {
  Processes(kMount2, "0::/pods/one/box\n");
  Write("/sys/fs/cgroup/pods/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/pods/one/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/pods/one/box/cpu.max", "400000 100000\n");
  Write("/sys/fs/cgroup/pods/other/cpu.max", "1000 100000\n");
  EXPECT_EQ(Quota(), 1.5);
}

TEST_F(CpuQuotaTest, Version1) {
  Processes(kMount1, "3:cpuset:/x\n2:cpu,cpuacct:/docker/abc\n");
  Quota1("", "-1");
  EXPECT_EQ(Quota(), std::nullopt);
  Quota1("/docker/abc", "200000");
  EXPECT_EQ(Quota(), 2.0);
  Quota1("/docker", "50000");
  EXPECT_EQ(Quota(), 0.5);
}

// Both at once: version 2 has no CPU controller then.
TEST_F(CpuQuotaTest, Hybrid) {
  Processes(std::string(kMount1) +
                "33 25 0:29 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n",
            "2:cpu,cpuacct:/a\n0::/a\n");
  Quota1("/a", "300000");
  EXPECT_EQ(Quota(), 3.0);
}

// A container sees its own group at the top, and with or without a namespace another path of it.
TEST_F(CpuQuotaTest, Containers) {
  Write("/sys/fs/cgroup/cpu.max", "75000 50000\n");
  Processes(kMount2, "0::/\n");
  EXPECT_EQ(Quota(), 1.5);
  const std::string mounted = "30 25 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
  Processes(mounted, "0::/docker/abc\n");
  EXPECT_EQ(Quota(), 1.5);
  Processes(mounted, "0::/../other\n");
  EXPECT_EQ(Quota(), 1.5);
  Processes(mounted, "0::/docker/abc/inner\n");
  Write("/sys/fs/cgroup/inner/cpu.max", "25000 50000\n");
  EXPECT_EQ(Quota(), 0.5);
}

TEST(CoreLimitsTest, APartOfACoreCountsAsOne) {
  EXPECT_EQ((CoreLimits{8, std::nullopt}).available(), 8);
  EXPECT_EQ((CoreLimits{8, 0.25}).available(), 1);
  EXPECT_EQ((CoreLimits{8, 1.5}).available(), 2);
  EXPECT_EQ((CoreLimits{8, 2.0}).available(), 2);
  EXPECT_EQ((CoreLimits{2, 64.0}).available(), 2);
}

TEST(CoreLimitsTest, TheQuotaIsNamedWhenItLimits) {
  EXPECT_EQ((CoreLimits{8, std::nullopt}).Note(), "");
  EXPECT_EQ((CoreLimits{2, 1.5}).Note(), "");
  const std::string note = CoreLimits{8, 0.25}.Note();
  EXPECT_NE(note.find("0.25 cores"), std::string::npos) << note;
  EXPECT_NE(note.find("1 of 8"), std::string::npos) << note;
}

TEST(CoreLimitsTest, OfThisProcess) {
  EXPECT_GE(ReadCoreLimits().affinity, 1);
  EXPECT_EQ(AvailableCores(), ReadCoreLimits().available());
}

}  // namespace
}  // namespace expertmesh
