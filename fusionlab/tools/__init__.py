"""What is done with notebooks and the installation: editions, pages, reports, the doctor."""
