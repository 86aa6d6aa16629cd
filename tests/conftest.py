# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: the fixtures that boot virtual machines."""

pytest_plugins = ["harness.fixtures", "harness.longrun", "harness.report"]
