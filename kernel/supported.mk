# SPDX-License-Identifier: GPL-2.0-only
# The Linux that dm-remap is built for and tested on, both ends included: the one place that says
# so. Read by make, by shells and by Python, so NAME=VALUE it is.
LINUX_OLDEST=6.1
LINUX_NEWEST=7.3
