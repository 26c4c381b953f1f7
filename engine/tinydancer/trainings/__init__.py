"""The trainings that SQL asks for, each in a process of its own."""
