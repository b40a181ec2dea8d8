DROP TABLE journal_cluster;
