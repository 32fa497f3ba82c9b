"""Real hosts on one Linux machine: namespaces, shaped links, CPU shares. See docs/design/testbed.md."""
