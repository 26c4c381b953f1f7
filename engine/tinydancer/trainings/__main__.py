"""`python -m tinydancer.trainings` does the oldest training that nobody is doing, and ends."""

from tinydancer.trainings.run import main

main()
