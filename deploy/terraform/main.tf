# The service on ECS Fargate behind a load balancer. README.md beside this folder says how to apply it.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { application = var.name }
  }
}

data "aws_caller_identity" "this" {}

data "aws_vpc" "this" {
  id = var.vpc_id
}

data "aws_ecr_repository" "image" {
  name = var.repository
}

locals {
  account    = data.aws_caller_identity.this.account_id
  port       = 8080
  nfs        = 2049
  user       = 10001 # of the image
  image      = "${data.aws_ecr_repository.image.repository_url}@${var.image_digest}"
  log_group  = "/ecs/${var.name}"
  log_prefix = "alb"
  stores     = var.stores_secret_arn == null ? [] : ["DATABASE_URL", "CACHE_URL"]
}
