"""The native front door in C, and the program that builds it."""
