"""The servers under test, each as an application would write it, and each a program of its own."""
